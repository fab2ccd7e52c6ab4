/** Bytes that buffers of any kind were asked for, whoever asked. */
export class Allocations {
  /** Since the owner set it to 0. */
  bytes = 0;

  /** Replaces the constructors, for the life of the process. */
  install(): void {
    for (const name of ['alloc', 'allocUnsafe', 'allocUnsafeSlow'] as const) {
      const original = Buffer[name].bind(Buffer) as (size: number, ...rest: unknown[]) => Buffer<ArrayBuffer>;
      Buffer[name] = (size: number, ...rest: unknown[]): Buffer<ArrayBuffer> => {
        this.bytes += size;
        return original(size, ...rest);
      };
    }
    for (const name of TYPED) {
      const original = globalThis[name];
      const width = 'BYTES_PER_ELEMENT' in original ? original.BYTES_PER_ELEMENT : 1;
      Reflect.set(
        globalThis,
        name,
        new Proxy(original, {
          construct: (target, args: unknown[], newTarget): object => {
            const [first] = args;
            if (typeof first === 'number') this.bytes += first * width;
            else if (ArrayBuffer.isView(first)) this.bytes += first.byteLength;
            return Reflect.construct(target, args, newTarget) as object;
          },
        }),
      );
    }
  }
}

const TYPED = ['ArrayBuffer', 'Uint8Array', 'Uint16Array', 'Uint32Array', 'Int32Array', 'Float64Array'] as const;
