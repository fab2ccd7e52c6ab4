import type { TestFn } from 'ava';
import fc from 'fast-check';
import type { BlockDevice } from '../../journal/block-device.ts';

/** A device under test and what must be taken down behind it. */
export interface ContractSubject {
  readonly device: BlockDevice;
  /** Called after `device.close()`. */
  readonly dispose?: () => Promise<void>;
}

export interface ContractOptions {
  /** A device of `size` bytes that reads as zeroes. */
  readonly empty: (size: number) => Promise<ContractSubject>;
  /** The same, refusing modifications; left out where there is no such thing. */
  readonly readOnly?: (size: number) => Promise<ContractSubject>;
  /** Random histories tried; 25. A slow device may take fewer. */
  readonly histories?: number;
}

const SIZE = 2 * 1024 * 1024;

/** What every BlockDevice must do, whoever wrote it. Registers its tests with `test` under `name`. */
export function blockDeviceContract(test: TestFn, name: string, options: ContractOptions): void {
  const withDevice = async (
    make: ContractOptions['empty'],
    run: (device: BlockDevice) => Promise<void>,
  ): Promise<void> => {
    const subject = await make(SIZE);
    try {
      await run(subject.device);
    } finally {
      await subject.device.close();
      await subject.dispose?.();
    }
  };
  const withEmpty = async (run: (device: BlockDevice) => Promise<void>): Promise<void> =>
    withDevice(options.empty, run);

  test(`${name}: an empty device has its size and reads as zeroes`, async (t) => {
    await withEmpty(async (device) => {
      t.is(device.size, SIZE);
      t.false(device.readOnly);
      t.true((await readAll(device)).equals(Buffer.alloc(SIZE)));
    });
  });

  test(`${name}: single sectors at both ends and across 4 KiB borders are kept, their neighbours too`, async (t) => {
    await withEmpty(async (device) => {
      const model = Buffer.alloc(SIZE);
      for (const [at, length] of [
        [0, 512],
        [SIZE - 512, 512],
        [4096 - 512, 1024],
        [12_288 + 512, 4096],
      ] as const) {
        const bytes = pattern(length, at + 1);
        const before = Buffer.from(bytes);
        await device.write(at, bytes);
        t.deepEqual(bytes, before, 'the source is left alone');
        bytes.copy(model, at);
      }
      t.true((await readAll(device)).equals(model));
    });
  });

  test(`${name}: a read fills exactly its buffer`, async (t) => {
    await withEmpty(async (device) => {
      await device.write(0, pattern(8192, 3));
      const around = Buffer.alloc(2048, 0xee);
      await device.read(1024, around.subarray(512, 1536));
      t.true(around.subarray(512, 1536).equals(pattern(8192, 3).subarray(1024, 2048)));
      t.true(around.subarray(0, 512).every((byte) => byte === 0xee));
      t.true(around.subarray(1536).every((byte) => byte === 0xee));
    });
  });

  test(`${name}: what was answered last is what is read`, async (t) => {
    await withEmpty(async (device) => {
      for (let round = 1; round <= 20; round++) {
        await device.write(65_536, pattern(16_384, round));
        await device.write(65_536 + 4096, pattern(512, 100 + round));
        const got = Buffer.alloc(16_384);
        await device.read(65_536, got);
        const expected = pattern(16_384, round);
        pattern(512, 100 + round).copy(expected, 4096);
        t.true(got.equals(expected));
      }
    });
  });

  test(`${name}: a read at once is right or says that it is not one`, async (t) => {
    await withEmpty(async (device) => {
      const model = Buffer.alloc(SIZE);
      for (let round = 0; round < 40; round++) {
        const at = ((round * 7919) % 4000) * 512;
        const bytes = pattern(512 * (1 + (round % 16)), round + 1);
        await device.write(at, bytes);
        model.set(bytes, at);
        const into = Buffer.alloc(16_384, 0xee);
        const from = Math.max(0, at - 4096);
        const now = device.readNow?.(from, into);
        if (now === true) t.true(into.equals(model.subarray(from, from + into.length)));
        else t.true(now === false || now === undefined);
      }
    });
  });

  test(`${name}: zeroes read as zeroes, unmapped or not, and can be written again`, async (t) => {
    await withEmpty(async (device) => {
      for (const mayUnmap of [true, false]) {
        await device.write(0, pattern(SIZE, 7));
        await device.zero(512, 512, mayUnmap);
        await device.zero(8192, 1_000_448, mayUnmap);
        const model = pattern(SIZE, 7)
          .fill(0, 512, 1024)
          .fill(0, 8192, 8192 + 1_000_448);
        t.true((await readAll(device)).equals(model));
        await device.write(10_240, pattern(512, 9));
        pattern(512, 9).copy(model, 10_240);
        t.true((await readAll(device)).equals(model));
        await device.zero(0, SIZE, mayUnmap);
        t.true((await readAll(device)).equals(Buffer.alloc(SIZE)));
      }
    });
  });

  test(`${name}: extents cover the range exactly, and only data is not zero`, async (t) => {
    await withEmpty(async (device) => {
      await device.write(65_536, pattern(131_072, 5));
      await device.write(1_048_576, pattern(4096, 6));
      await device.zero(98_304, 16_384, true);
      await device.zero(524_288, 65_536, false);
      for (const [offset, length] of [
        [0, SIZE],
        [65_536, 512],
        [66_048, 1_500_160],
        [SIZE - 512, 512],
      ] as const) {
        const extents = await device.extents(offset, length);
        t.is(
          extents.reduce((sum, extent) => sum + extent.length, 0),
          length,
        );
        let at = offset;
        for (const extent of extents) {
          t.true(extent.length > 0 && extent.length % 512 === 0);
          if (extent.kind !== 'data') {
            const bytes = Buffer.alloc(extent.length, 1);
            await device.read(at, bytes);
            t.true(bytes.equals(Buffer.alloc(extent.length)), `${extent.kind} at ${at}`);
          }
          at += extent.length;
        }
      }
    });
  });

  test(`${name}: many requests at once do not disturb one another`, async (t) => {
    await withEmpty(async (device) => {
      const piece = 32_768;
      const pieces = Array.from({ length: SIZE / piece }, (_, i) => i);
      await Promise.all(pieces.map(async (i) => device.write(i * piece, pattern(piece, i))));
      await Promise.all([device.flush(), device.flush()]);
      const all = await Promise.all(
        pieces.map(async (i) => {
          const got = Buffer.alloc(piece);
          await device.read(i * piece, got);
          return got.equals(pattern(piece, i));
        }),
      );
      t.true(all.every(Boolean));
    });
  });

  test(`${name}: many writes in one call end like as many calls`, async (t) => {
    await withEmpty(async (device) => {
      if (device.writeMany === undefined) {
        t.pass('it takes them one by one');
        return;
      }
      const model = Buffer.alloc(SIZE);
      const memory = new SharedArrayBuffer(SIZE);
      const bytes = Buffer.from(memory);
      bytes.set(pattern(SIZE, 9));
      for (let round = 0; round < 4; round++) {
        const places: number[] = [];
        // runs of neighbours and gaps, small and large, taken from the memory in another order
        for (let sector = round; sector < SIZE / 512; ) {
          const sectors = Math.min(SIZE / 512 - sector, 1 + ((sector * 31 + round) % (sector % 7 === 0 ? 300 : 9)));
          const at = SIZE - (sector + sectors) * 512;
          places.push(sector * 512, at, sectors * 512);
          bytes.copy(model, sector * 512, at, at + sectors * 512);
          sector += sectors + (sector % 3 === 0 ? 1 : 0);
        }
        await device.writeMany(memory, Float64Array.from(places));
        t.true((await readAll(device)).equals(model));
      }
    });
  });

  test(`${name}: a request that is not whole sectors inside the device is refused and changes nothing`, async (t) => {
    await withEmpty(async (device) => {
      await device.write(0, pattern(4096, 1));
      for (const [offset, length] of [
        [0, 100],
        [100, 512],
        [SIZE, 512],
        [SIZE - 512, 1024],
        [-512, 512],
      ] as const) {
        await t.throwsAsync(async () => device.read(offset, Buffer.alloc(length)));
        await t.throwsAsync(async () => device.write(offset, Buffer.alloc(length)));
        await t.throwsAsync(async () => device.zero(offset, length, true));
        await t.throwsAsync(async () => device.extents(offset, length));
      }
      const expected = Buffer.alloc(SIZE);
      pattern(4096, 1).copy(expected);
      t.true((await readAll(device)).equals(expected));
    });
  });

  test(`${name}: random histories end like a plain disk`, async (t) => {
    await fc.assert(
      fc.asyncProperty(fc.array(OPERATION, { minLength: 1, maxLength: 30 }), async (operations) => {
        await withEmpty(async (device) => {
          const model = Buffer.alloc(SIZE);
          for (const { kind, sector, sectors, seed } of operations) {
            const offset = sector * 512;
            const length = Math.min(sectors * 512, SIZE - offset);
            if (kind === 'write') {
              const bytes = pattern(length, seed);
              await device.write(offset, bytes);
              bytes.copy(model, offset);
            } else if (kind === 'flush') await device.flush();
            else {
              await device.zero(offset, length, kind === 'trim');
              model.fill(0, offset, offset + length);
            }
          }
          if (!(await readAll(device)).equals(model)) throw new Error('the device differs from the model');
        });
      }),
      { numRuns: options.histories ?? 25 },
    );
    t.pass();
  });

  test(`${name}: close may be called twice`, async (t) => {
    await withEmpty(async (device) => {
      await device.write(0, pattern(512, 1));
      await device.close();
      await t.notThrowsAsync(async () => device.close());
    });
  });

  const { readOnly } = options;
  if (readOnly === undefined) return;
  test(`${name}: a read-only device says so and refuses`, async (t) => {
    await withDevice(readOnly, async (device) => {
      t.true(device.readOnly);
      await t.throwsAsync(async () => device.write(0, Buffer.alloc(512)), { code: 'read-only' });
      await t.throwsAsync(async () => device.zero(0, 512, true), { code: 'read-only' });
      await device.flush();
      t.is((await readAll(device)).length, SIZE);
    });
  });
}

const OPERATION = fc.record({
  kind: fc.constantFrom('write', 'write', 'write', 'trim', 'zero', 'flush'),
  sector: fc.integer({ min: 0, max: SIZE / 512 - 1 }),
  sectors: fc.oneof(fc.integer({ min: 1, max: 16 }), fc.integer({ min: 1, max: 1024 })),
  seed: fc.integer({ min: 1, max: 255 }),
});

/** Bytes without zeroes, different for each seed and at each place. */
function pattern(length: number, seed: number): Buffer {
  const bytes = Buffer.allocUnsafe(length);
  for (let i = 0; i < length; i++) bytes[i] = 1 + ((i * 7 + (i >> 9) * 31 + seed * 113) % 255);
  return bytes;
}

async function readAll(device: BlockDevice): Promise<Buffer> {
  const bytes = Buffer.alloc(device.size, 0xcc);
  await device.read(0, bytes);
  return bytes;
}
