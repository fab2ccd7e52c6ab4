/* rec write DIR [FIRST] [COUNT] [USLEEP] : one numbered record per step, fsynced before "DURABLE n" is printed.
 * rec verify DIR : checks that the records and ring slots are an unbroken prefix of the run; prints "VERIFY min=.. max=.. missing=.. bad=.. ring_bad=.. ring_max=.." */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/stat.h>
#define KEEP 2000  /* older records are deleted: exercises frees and block reuse */
#define SLOTS 256  /* ring.dat: 4 KiB slots overwritten in place, record n in slot n % SLOTS */
static uint8_t buf[65536];
static int fill(uint64_t n, int ring) {         /* record bytes are a function of its number */
  uint64_t s = n * 0x9E3779B97F4A7C15ULL + ring + 1; int len = ring ? 4096 : 512 + (int)(n * 7919 % 16384) / 8 * 8;
  for (int i = 0; i < len; i += 8) { s ^= s << 13; s ^= s >> 7; s ^= s << 17; memcpy(buf + i, &s, 8); }
  memcpy(buf, &n, 8); return len; }
static void die(const char *w) { perror(w); printf("WORKLOAD-ERROR %s\n", w); exit(1); }
int main(int c, char **v) {
  char p[300]; setvbuf(stdout, 0, _IOLBF, 0);
  if (c < 3) return 2;
  snprintf(p, sizeof p, "%s/ring.dat", v[2]);
  if (!strcmp(v[1], "write")) {
    uint64_t n = c > 3 ? strtoull(v[3], 0, 10) : 1, cnt = c > 4 ? strtoull(v[4], 0, 10) : ~0ULL; int us = c > 5 ? atoi(v[5]) : 0;
    int d = open(v[2], O_RDONLY | O_DIRECTORY), r = open(p, O_RDWR | O_CREAT, 0644); if (d < 0 || r < 0) die("open");
    for (uint64_t k = 0; k < cnt; n++, k++) {
      int len = fill(n, 0); snprintf(p, sizeof p, "%s/r%08llu", v[2], (unsigned long long)n);
      int f = open(p, O_WRONLY | O_CREAT | O_TRUNC, 0644);
      if (f < 0 || write(f, buf, len) != len || fsync(f) || close(f) || fsync(d)) die("record");
      fill(n, 1); if (pwrite(r, buf, 4096, (off_t)(n % SLOTS) * 4096) != 4096 || fdatasync(r)) die("ring");
      printf("DURABLE %llu\n", (unsigned long long)n);
      for (uint64_t o = n > KEEP ? (k || n < 2 * KEEP ? n - KEEP : n - 2 * KEEP + 1) : n; o + KEEP <= n; o++) { /* first step: also leftovers of a crash */
        printf("DEL %llu\n", (unsigned long long)o); snprintf(p, sizeof p, "%s/r%08llu", v[2], (unsigned long long)o); unlink(p); }
      if (us) usleep(us); }
    return 0; }
  static uint8_t got[65536]; static uint64_t slot[SLOTS];
  uint64_t mn = 0, mx = 0, miss = 0, bad = 0, rbad = 0, rmax = 0, gap = 0, lastbad = 0, n;
  int r = open(p, O_RDONLY);
  for (int s = 0; r >= 0 && s < SLOTS && pread(r, got, 4096, (off_t)s * 4096) == 4096; s++) {
    memcpy(&n, got, 8); int zero = 1; for (int i = 0; i < 4096; i++) zero &= !got[i];
    if (zero) continue;
    fill(n, 1); if (n % SLOTS != (unsigned)s || memcmp(buf, got, 4096)) { rbad++; printf("RING-BAD slot %d\n", s); } else if ((slot[s] = n) > rmax) rmax = n; }
  for (n = rmax > SLOTS ? rmax - SLOTS + 1 : 1; n <= rmax; n++) /* each in-place overwrite up to the newest must be there */
    if (slot[n % SLOTS] != n) { rbad++; printf("RING-STALE slot %llu has %llu, not %llu\n", (unsigned long long)(n % SLOTS), (unsigned long long)slot[n % SLOTS], (unsigned long long)n); }
  for (n = 1; gap < 2 * KEEP + rmax; n++) {
    snprintf(p, sizeof p, "%s/r%08llu", v[2], (unsigned long long)n); int f = open(p, O_RDONLY);
    if (f < 0) { gap++; continue; }
    if (mn) miss += gap; else mn = n;
    gap = 0; mx = n; int len = fill(n, 0), g = (int)read(f, got, sizeof got); close(f);
    if (g != len || memcmp(buf, got, len)) { bad++; lastbad = n; printf("BAD %llu len %d of %d\n", (unsigned long long)n, g, len); } }
  if (bad && lastbad == mx) { bad--; mx--; printf("TAIL-TORN (allowed: the step in progress)\n"); }
  printf("VERIFY min=%llu max=%llu missing=%llu bad=%llu ring_bad=%llu ring_max=%llu\n", (unsigned long long)mn, (unsigned long long)mx,
    (unsigned long long)miss, (unsigned long long)bad, (unsigned long long)rbad, (unsigned long long)rmax);
  return miss || bad || rbad; }
