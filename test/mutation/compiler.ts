import type { SourceFile } from 'typescript/unstable/ast';
import { API, type Project } from 'typescript/unstable/sync';
import { PROJECT } from '../planted/patch-loader.ts';
import { type Mutant, mutate } from './mutant.ts';

/** A declared name that nothing uses any more is untidy, not wrong: the mutant runs. */
const UNUSED = new Set([6133, 6138, 6192, 6196, 6198, 6199, 6205]);

/** The project's own compiler: gives the syntax trees and says which mutants it would not have let pass. */
export class Compiler {
  readonly #api: API;
  readonly #texts = new Map<string, string>();
  #project: Project;

  constructor() {
    this.#api = new API({ cwd: PROJECT, fs: { readFile: (name) => this.#texts.get(name) } });
    this.#project = this.#opened();
  }

  /** `file` from the top of the project. */
  tree(file: string): SourceFile {
    const source = this.#project.program.getSourceFile(`${PROJECT}/${file}`);
    if (source === undefined) throw new Error(`${file} is no file of the project`);
    return source;
  }

  /** True when the changed file has no error: a mutant that the compiler stops would never have come to the tests. */
  compiles(text: string, mutant: Mutant): boolean {
    const name = `${PROJECT}/${mutant.file}`;
    this.#texts.set(name, mutate(text, mutant));
    this.#project = this.#changed(name);
    const { program } = this.#project;
    const faults = [...program.getSyntacticDiagnostics(name), ...program.getSemanticDiagnostics(name)];
    this.#texts.delete(name);
    this.#project = this.#changed(name);
    return faults.every(({ code }) => UNUSED.has(code));
  }

  close(): void {
    this.#api.close();
  }

  #opened(): Project {
    return only(this.#api.updateSnapshot({ openProjects: [`${PROJECT}/tsconfig.json`] }).getProjects());
  }

  #changed(name: string): Project {
    return only(this.#api.updateSnapshot({ fileChanges: { changed: [name] } }).getProjects());
  }
}

function only(projects: readonly Project[]): Project {
  const [project] = projects;
  if (project === undefined) throw new Error('the compiler has not opened the project');
  return project;
}
