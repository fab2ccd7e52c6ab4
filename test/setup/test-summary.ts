import { stripVTControlCharacters } from 'node:util';

/** Counts what ava's default reporter prints. */
export class TestSummary {
  #text = '';

  add(text: string): void {
    this.#text += text;
  }

  /** `succeeded`: ava exited with 0. A run that failed without naming a test (a crash, no files) counts as one failure. */
  line(succeeded: boolean): string {
    const lines = stripVTControlCharacters(this.#text).split('\n');
    const total = (what: RegExp): number => lines.reduce((sum, line) => sum + Number(what.exec(line)?.[1] ?? 0), 0);
    // The total of passed tests is only printed when nothing failed; each passed test has a line of its own.
    const ticked = lines.filter((line) => /^ {2}[✔√] /.test(line)).length;
    const passed = total(/^ {2}(\d+) tests? passed(?: \[.*)?$/) || ticked;
    const failed =
      total(/^ {2}(\d+) tests? failed(?: \[.*)?$/) +
      total(/^ {2}(\d+) (?:unhandled rejections?|uncaught exceptions?)$/) +
      total(/^ {2}(\d+) tests? remained pending after a timeout$/);
    const skipped = total(/^ {2}(\d+) tests? skipped$/);
    return `${passed} passed, ${succeeded ? failed : Math.max(1, failed)} failed, ${skipped} skipped`;
  }
}
