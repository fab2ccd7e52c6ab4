/** 32 hex digits. */
export const GROUP_ID: string = '5'.repeat(32);
export const GROUP_NAME = 'g';
export const REPLICA_NAME = 'r';
export const REPLICA_ADDRESS = 'replica:10809';
export const JOURNAL_DIRECTORY = '/source/journal';
export const REPLICA_DIRECTORY = '/replica/g';
