/**
 * Where a worker's program lies: beside the module that starts it. Node runs the sources from a checkout and the built
 * files from a package, and the compiler does not rewrite names in `new URL`.
 */
export function workerFile(name: string, startedBy: string): URL {
  return new URL(startedBy.endsWith('.ts') ? name : name.replace(/\.ts$/, '.js'), startedBy);
}
