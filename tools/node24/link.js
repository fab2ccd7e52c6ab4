// npm 10 installs the platform's Node but does not link it into node_modules/.bin (npm 11 and 12 do). Runs after every
// install, under whatever Node the machine has, and does nothing where the link exists or the platform has no package.
import { existsSync, symlinkSync } from 'node:fs';

const bin = new URL('../../node_modules/.bin/', import.meta.url);
const target = `../node-${process.platform}-${process.arch}/bin/node`;
if (existsSync(new URL(target, bin)) && !existsSync(new URL('node', bin))) {
  symlinkSync(target, new URL('node', bin));
}
