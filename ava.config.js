const [major] = process.versions.node.split('.').map(Number);
if (major < 24) {
  throw new Error(`The tests need Node 24, this is ${process.version}: run "npm test", which brings its own.`);
}

export default {
  files: ['test/**/*.test.ts'],
  extensions: ['ts'],
  // Idle time: no result from any test for this long.
  timeout: '60s',
  // A process per test file, so that signals, chdir and umask are real.
  workerThreads: false,
  snapshotDir: 'test/snapshots',
  // kafkajs 2.2.4 re-arms a timer with a negative delay, which Node 24 warns about.
  nodeArguments: ['--disable-warning=TimeoutNegativeWarning'],
};
