import type { ControlConfig, MetricsConfig } from './config/config-types.ts';
import type { DaemonReply, StatusReply } from './control/control-api.ts';
import { type ControlServer, createControlServer, type Routes } from './control/control-server.ts';
import { ALARM_CODES } from './telemetry/alarm-codes.ts';
import { AlarmCommand } from './telemetry/alarm-command.ts';
import { type AlarmChange, type AlarmCondition, AlarmRegistry } from './telemetry/alarms.ts';
import type { Log } from './telemetry/log.ts';
import { startTelemetry, type Telemetry } from './telemetry/open-telemetry.ts';
import { sdNotify } from './telemetry/sd-notify.ts';
import { isoNow } from './times.ts';
import { version } from './version.ts';
import type { Health } from './worker/group-host.ts';

/** What both roles hand to the runtime; the runtime owns everything around the groups. */
export interface DaemonRole {
  readonly role: 'source' | 'replica';
  readonly groups: readonly RoleGroup[];
  /** Every group serves or receives: systemd is told. */
  ready(): boolean;
  /** A first status would say something: the control socket waits for it, for a bounded time. */
  presentable(): boolean;
  status(daemon: DaemonReply, alarms: AlarmRegistry['standing']): StatusReply;
  conditions(): AlarmCondition[];
  routes(): Routes;
}

export interface RoleGroup {
  readonly group: string;
  readonly health: Health;
  stop(hurry: boolean): Promise<void>;
}

export interface DaemonSettings {
  readonly control: ControlConfig;
  readonly metrics: MetricsConfig;
  readonly alarmCommand: readonly string[] | null;
}

/** How often alarms are looked at, and whether anything ended. */
const TICK_MS = 250;
/** The control socket waits this long for the first word of every group, so that the first status is a whole one. */
const FIRST_REPORT_WAIT_MS = 5000;

/** The long-running process around the groups: control socket, alarms, metrics, signals, the end. */
export class DaemonRuntime {
  readonly log: Log;
  readonly alarms: AlarmRegistry;
  readonly #settings: DaemonSettings;
  readonly #role: DaemonRole;
  readonly #startedAt: string = isoNow();
  readonly #alarmCommand: AlarmCommand | undefined;
  readonly #finished = Promise.withResolvers<number>();
  #telemetry: Telemetry | undefined;
  #control: ControlServer | undefined;
  #stopping = false;
  #wasReady = false;

  constructor(log: Log, settings: DaemonSettings, role: DaemonRole) {
    this.log = log;
    this.#settings = settings;
    this.#role = role;
    this.#alarmCommand = settings.alarmCommand === null ? undefined : new AlarmCommand(settings.alarmCommand, log);
    this.alarms = new AlarmRegistry((change) => this.#onAlarm(change), isoNow);
  }

  /** Runs until a signal, or until no group is left. Resolves with the exit code of the process. */
  async run(): Promise<number> {
    const onSignal = (signal: NodeJS.Signals): void => this.#onSignal(signal);
    process.on('SIGTERM', onSignal);
    process.on('SIGINT', onSignal);
    const tick = setInterval(() => this.#tick(), TICK_MS);
    try {
      await this.#open();
      return await this.#finished.promise;
    } catch (error) {
      await Promise.all(this.#role.groups.map((group) => group.stop(true)));
      throw error;
    } finally {
      clearInterval(tick);
      process.off('SIGTERM', onSignal);
      process.off('SIGINT', onSignal);
      await this.#control?.close();
      await this.#telemetry?.close();
      await this.#alarmCommand?.idle();
    }
  }

  status(): StatusReply {
    const daemon: DaemonReply = {
      version: version(),
      pid: process.pid,
      startedAt: this.#startedAt,
      now: isoNow(),
      ready: this.#role.ready() && !this.#stopping,
    };
    return this.#role.status(daemon, this.alarms.standing);
  }

  /** Runs a control operation as a span, and writes down what came of it. */
  async operation<T>(name: string, fields: Record<string, string>, work: () => Promise<T>): Promise<T> {
    const startedMs = performance.now();
    try {
      const telemetry = this.#telemetry;
      const result = await (telemetry === undefined ? work() : telemetry.trace(name, fields, work));
      this.log.info({ code: name, ...fields, durationMs: performance.now() - startedMs }, `${name} done`);
      return result;
    } catch (error) {
      this.log.warn(
        { code: name, ...fields, error, durationMs: performance.now() - startedMs },
        `${name} refused or failed`,
      );
      throw error;
    }
  }

  async #open(): Promise<void> {
    const { control, metrics } = this.#settings;
    this.#telemetry = await startTelemetry(metrics, version(), () => this.status());
    if (this.#telemetry.metricsUrl !== null) {
      this.log.info({ code: 'metrics-listening', url: this.#telemetry.metricsUrl }, 'metrics are served');
    }
    const options = { version: version(), title: `tidemark ${this.#role.role}`, onAssertion: throwOutside };
    const server = await createControlServer(options, this.#role.routes());
    await this.#firstReports();
    await server.listen(control.socket);
    this.#control = server;
    this.log.info({ code: 'control-listening', socket: control.socket }, 'the control socket is open');
  }

  async #firstReports(): Promise<void> {
    const endAt = performance.now() + FIRST_REPORT_WAIT_MS;
    while (!this.#role.presentable() && performance.now() < endAt && !this.#stopping) {
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  #tick(): void {
    this.alarms.update(this.#role.conditions());
    if (!this.#wasReady && !this.#stopping && this.#role.ready() && this.#control !== undefined) {
      this.#wasReady = true;
      this.log.info({ code: 'ready' }, 'every group is up');
      sdNotify('ready', this.log);
    }
    const gone = (group: RoleGroup): boolean => group.health.state === 'failed' && !group.health.restarting;
    if (!this.#stopping && this.#role.groups.every(gone)) {
      this.log.fatal({ code: 'no-group-left' }, 'no group is left: ending');
      this.#finished.resolve(1);
    }
  }

  #onAlarm({ change, alarm }: AlarmChange): void {
    const fields = { ...alarm, code: `alarm-${change}`, alarm: alarm.code, group: alarm.group ?? undefined };
    const text = `${alarm.code}: ${alarm.message}`;
    if (change === 'cleared') this.log.info(fields, text);
    else if (alarm.severity === 'critical') this.log.error({ ...fields, action: actionOf(alarm.code) }, text);
    else this.log.warn({ ...fields, action: actionOf(alarm.code) }, text);
    this.#alarmCommand?.run({ change, alarm });
  }

  #onSignal(signal: NodeJS.Signals): void {
    const hurry = this.#stopping;
    this.log.info({ code: 'stopping', signal, hurry }, hurry ? 'stopping at once' : 'finishing what is under way');
    if (!hurry) sdNotify('stopping', this.log);
    this.#stopping = true;
    const stopped = Promise.all(this.#role.groups.map((group) => group.stop(hurry)));
    stopped.then(
      () => {
        const failed = this.#role.groups.some((group) => group.health.state === 'failed');
        this.log.info({ code: 'stopped' }, 'stopped');
        this.#finished.resolve(failed || hurry ? 1 : 0);
      },
      (error: unknown) => throwOutside(error),
    );
  }
}

/** A bug must end the process: thrown out of the promise it was found in. */
function throwOutside(error: unknown): void {
  setImmediate(() => {
    throw error;
  });
}

function actionOf(code: string): string {
  return ALARM_CODES[code as keyof typeof ALARM_CODES].action;
}
