/**
 * Where a frame stands in a topic, as the string a replica keeps with its durable state: `<offset>@<topic id>`. The
 * topic id makes a re-created topic visible whatever its offsets are (DESIGN rule 19).
 */
export interface StreamOffset {
  readonly offset: bigint;
  readonly topicId: string;
}

export function formatStreamOffset(position: StreamOffset): string {
  return `${position.offset}@${position.topicId}`;
}

/** Undefined for the empty string and for anything another kind of stream wrote. */
export function parseStreamOffset(text: string): StreamOffset | undefined {
  const match = /^(\d{1,19})@([0-9a-f]{32})$/.exec(text);
  if (match?.[1] === undefined || match[2] === undefined) return undefined;
  return { offset: BigInt(match[1]), topicId: match[2] };
}
