import shared from './ava.config.js';

/** Whole guests, brokers and power cuts: one file at a time, minutes each. */
export default {
  ...shared,
  files: ['test/acceptance/**/*.acceptance.ts'],
  concurrency: 1,
  timeout: '20m',
};
