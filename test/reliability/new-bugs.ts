import type { FoundBug } from './ledger.ts';

/** How people call the methods; anything else was found by reading or by a test. */
const NAMES: readonly (readonly [RegExp, string])[] = [
  [/^simulat/i, 'simulator'],
  [/^planted/i, 'planted'],
  [/^mutation|^mutant/i, 'mutation'],
  [/^every.call/i, 'every-call'],
  [/^guest/i, 'guest-kills'],
  [/^file.systems?/i, 'file-systems'],
  [/^power/i, 'power-loss'],
  [/^kafka/i, 'kafka'],
  [/^fuzz/i, 'fuzzing'],
  [/^propert/i, 'properties'],
  [/^golden/i, 'golden'],
];

/** Lines of `method | symptom | commit subject` whose subject is not known yet; anything else is passed over. */
export function newBugs(text: string, known: readonly FoundBug[]): FoundBug[] {
  const subjects = new Set(known.map(({ mend }) => mend));
  return text.split('\n').flatMap((line): FoundBug[] => {
    const [found = '', symptom, mend, ...more] = line.split(' | ').map((part) => part.trim());
    if (symptom === undefined || mend === undefined || mend === '' || more.length > 0 || subjects.has(mend)) return [];
    subjects.add(mend);
    const method = NAMES.find(([pattern]) => pattern.test(found))?.[1] ?? 'review';
    return [{ method, symptom: `${symptom.slice(0, 1).toUpperCase()}${symptom.slice(1)}`, mend }];
  });
}
