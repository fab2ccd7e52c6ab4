const cleaners = new Set<() => void>();
let listening = false;

/**
 * Runs this when the process ends: by itself, by a signal (ava ends a test file whose time is over so), or because
 * whoever runs the tests is gone. Not after SIGKILL. Synchronous work only; returns the way to take it back.
 */
export function atEnd(run: () => void): () => void {
  cleaners.add(run);
  if (!listening) listen();
  return () => {
    cleaners.delete(run);
  };
}

function listen(): void {
  listening = true;
  process.once('exit', clean);
  process.once('disconnect', clean);
  for (const signal of ['SIGTERM', 'SIGHUP', 'SIGINT'] as const) {
    process.once(signal, () => {
      clean();
      // Now that it is not listened for any more it does what it does.
      process.kill(process.pid, signal);
    });
  }
}

function clean(): void {
  for (const run of cleaners) run();
  cleaners.clear();
}
