import fs from 'node:fs';
import path from 'node:path';
import { run } from '../../servers/child.ts';

/** Writes what is dirty of a directory's files and gives their pages back, so that what reads them next reads the disk. */
export async function evict(directory: string): Promise<void> {
  for (const entry of fs.readdirSync(directory, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const file = path.join(entry.parentPath, entry.name);
    // dd of nothing with these flags is fdatasync and posix_fadvise(DONTNEED), which Node has no call for
    await run('dd', [`of=${file}`, 'oflag=nocache', 'conv=notrunc,fdatasync', 'count=0', 'status=none']);
  }
}
