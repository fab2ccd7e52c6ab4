import type { NbdClient } from '../../daemon/nbd/client.ts';

/** The disk of the demo: an order book. Each order is one 4 KiB block of readable text. */
export const ORDER_BYTES = 4096;

/** The text of one order, the same whenever it is asked for: whoever restores it can be checked byte for byte. */
export function order(number: number): Buffer {
  const cents = 199 + ((number * 7919) % 90_000);
  const line = `order ${String(number).padStart(6, '0')}  customer ${1000 + ((number * 31) % 9000)}  ${(cents / 100).toFixed(2)} EUR  paid\n`;
  return Buffer.from(line.repeat(Math.ceil(ORDER_BYTES / line.length)).slice(0, ORDER_BYTES));
}

/** Writes orders [first, first + count) in requests of 64 KiB, and makes them durable. */
export async function takeOrders(disk: NbdClient, first: number, count: number): Promise<void> {
  const perRequest = 16;
  for (let done = 0; done < count; done += perRequest) {
    const orders: Buffer[] = [];
    for (let index = done; index < Math.min(done + perRequest, count); index++) orders.push(order(first + index));
    await disk.write((first + done) * ORDER_BYTES, Buffer.concat(orders));
  }
  await disk.flush();
}

/** What the accident leaves where the orders were. */
export function ransom(): Buffer {
  const line = 'YOUR FILES ARE ENCRYPTED. Send 5 BTC to learn how to get them back. ';
  return Buffer.from(line.repeat(Math.ceil(ORDER_BYTES / line.length)).slice(0, ORDER_BYTES));
}

/** Overwrites every order. */
export async function haveAccident(disk: NbdClient, count: number): Promise<void> {
  const block = Buffer.concat(Array.from({ length: 16 }, ransom));
  for (let number = 0; number < count; number += 16) await disk.write(number * ORDER_BYTES, block);
  await disk.flush();
}

/** The numbers of the orders that are not as they were written. */
export async function damagedOrders(disk: Pick<NbdClient, 'read'>, count: number): Promise<number> {
  let damaged = 0;
  const block = Buffer.alloc(ORDER_BYTES * 64);
  for (let number = 0; number < count; number += 64) {
    await disk.read(number * ORDER_BYTES, block);
    for (let index = 0; index < 64 && number + index < count; index++) {
      const stored = block.subarray(index * ORDER_BYTES, (index + 1) * ORDER_BYTES);
      if (!stored.equals(order(number + index))) damaged++;
    }
  }
  return damaged;
}
