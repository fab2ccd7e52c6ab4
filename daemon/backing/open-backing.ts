import { parseNbdUri } from '../nbd/nbd-uri.ts';
import type { Backing } from './backing.ts';
import { FileBacking } from './file-backing.ts';
import { NbdBacking, type NbdBackingOptions } from './nbd-backing.ts';

/**
 * Opens the disk behind a volume: an NBD URI (`nbd://`, `nbds://`, `nbd+unix://`, `nbds+unix://`), else the path of a
 * raw file or block device. Rejects as the backing's own `open` does.
 */
export async function openBacking(location: string, options: NbdBackingOptions = {}): Promise<Backing> {
  if (/^nbds?(\+unix)?:/.test(location)) return NbdBacking.open(parseNbdUri(location), options);
  return FileBacking.open(location, options.readOnly === true ? { readOnly: true } : {});
}
