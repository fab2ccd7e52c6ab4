/** Seeds that once ended in a broken promise, each with what it found. A change of what is drawn makes another run of them. */
export const PAST_SEEDS: readonly { readonly seed: number; readonly found: string }[] = [
  {
    seed: 6,
    found: 'an old feedback, read as the newest after its topic had lost its end, halted the stream for good',
  },
  { seed: 7, found: 'a request to send again, answered late, asked for what the journal no longer had to have' },
  { seed: 26, found: 'the same, over several starts of the source' },
  {
    seed: 30,
    found: 'rot in the last frame of a segment without a footer was cut like a torn tail, though it was acknowledged',
  },
  { seed: 35, found: 'a topic with nothing but somebody else’s frames: named, and given back by the operator' },
  { seed: 5012, found: 'the model’s own: a power loss under a sync of nothing changed the time of a disk' },
  {
    seed: 5169,
    found: 'a segment whose header page rotted was left out, and later points were shown without its records',
  },
  { seed: 6038, found: 'records shipped between two gaps were said to be given up, and were not in the change map' },
  { seed: 7038, found: 'a volume whose first record stands in a damaged frame was said not to exist' },
  {
    seed: 8249,
    found: 'header page and first frame of the only segment damaged: the position of the replica went back',
  },
];
