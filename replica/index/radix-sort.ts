/**
 * The order of entries by (place, cell), entries of one cell staying in order of arrival: a least-significant-digit
 * radix sort over an index array, 16 bits at a time; digits that are equal everywhere cost one pass of counting.
 */
export function sortOrder(place: Uint32Array, cell: Float64Array, count: number): Uint32Array {
  let order = new Uint32Array(count);
  let other = new Uint32Array(count);
  for (let i = 0; i < count; i += 1) order[i] = i;
  const digits = new Uint16Array(count);
  const counts = new Uint32Array(0x1_0000);
  for (let pass = 0; pass < 5; pass += 1) {
    for (let i = 0; i < count; i += 1) digits[i] = digitOf(pass, place[i] ?? 0, cell[i] ?? 0);
    const first = digits[0];
    if (digits.every((digit) => digit === first)) continue;
    counts.fill(0);
    for (let i = 0; i < count; i += 1) counts[digits[i] ?? 0] = (counts[digits[i] ?? 0] ?? 0) + 1;
    let sum = 0;
    for (let digit = 0; digit < 0x1_0000; digit += 1) {
      const here = counts[digit] ?? 0;
      counts[digit] = sum;
      sum += here;
    }
    for (let i = 0; i < count; i += 1) {
      const index = order[i] ?? 0;
      const digit = digits[index] ?? 0;
      const at = counts[digit] ?? 0;
      other[at] = index;
      counts[digit] = at + 1;
    }
    [order, other] = [other, order];
  }
  return order;
}

/** Cells are below 2^41 (2^53 bytes in cells of 4 KiB), places below 2^19. */
function digitOf(pass: number, place: number, cell: number): number {
  switch (pass) {
    case 0:
      return cell & 0xffff;
    case 1:
      return Math.floor(cell / 0x1_0000) & 0xffff;
    case 2:
      return Math.floor(cell / 0x1_0000_0000) & 0xffff;
    case 3:
      return place & 0xffff;
    default:
      return place >>> 16;
  }
}
