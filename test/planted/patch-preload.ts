import { registerHooks } from 'node:module';
import { PATCHES_VARIABLE, type PatchedFile, projectPath } from './patch-loader.ts';

/** Given to programs by `patchedEnvironment` as `--import`: from here on the loader gives the patched texts. */
const patches = JSON.parse(process.env[PATCHES_VARIABLE] ?? '[]') as readonly PatchedFile[];
const texts = new Map(patches.map(({ file, text }) => [file, text]));

registerHooks({
  load: (url, context, nextLoad) => {
    const loaded = nextLoad(url, context);
    const text = url.startsWith('file:') ? texts.get(projectPath(url)) : undefined;
    return text === undefined ? loaded : { ...loaded, source: text };
  },
});
