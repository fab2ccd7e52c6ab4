import { enableCompileCache, registerHooks } from 'node:module';
import '../planted/patch-preload.ts';

/** Given to a judge with `--import`: the test files find the serial tests where they ask for ava. */
const serial = new URL('serial-tests.ts', import.meta.url).href;

enableCompileCache(new URL('../../node_modules/.cache/mutation-code', import.meta.url).pathname);
registerHooks({
  resolve: (specifier, context, nextResolve) =>
    specifier === 'ava' ? { url: serial, shortCircuit: true } : nextResolve(specifier, context),
});
