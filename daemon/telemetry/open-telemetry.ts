import http from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Attributes, Meter } from '@opentelemetry/api';
import { TidemarkError } from '../../journal/base/errors.ts';
import type { MetricsConfig } from '../config/config-types.ts';
import type { StatusReply } from '../control/control-api.ts';
import { METRICS } from './metric-definitions.ts';

/**
 * Metrics on a Prometheus endpoint and, when asked for, traces of control operations over OTLP. Loading it takes half a
 * second and 40 MiB: that happens after the configuration was found good, and only when one of the two is wanted.
 */
export interface Telemetry {
  /** Where metrics are served; null when they are not. */
  readonly metricsUrl: string | null;
  /** Runs `work` as a span; a rejection is recorded in it and handed on. */
  readonly trace: <T>(name: string, attributes: Attributes, work: () => Promise<T>) => Promise<T>;
  close(): Promise<void>;
}

/** A collector that is away must not hold up a stop. */
const CLOSE_WAIT_MS = 2000;

const NO_TELEMETRY: Telemetry = {
  metricsUrl: null,
  trace: async (_name, _attributes, work) => work(),
  close: () => Promise.resolve(),
};

/** Rejects with config-invalid when the endpoint's address cannot be taken. */
export async function startTelemetry(
  config: MetricsConfig,
  version: string,
  status: () => StatusReply,
): Promise<Telemetry> {
  if (config.listen === null && config.tracesEndpoint === null) return NO_TELEMETRY;
  const [api, { startNodeSdk }, { PrometheusExporter }] = await Promise.all([
    import('@opentelemetry/api'),
    import('@opentelemetry/sdk-node'),
    import('@opentelemetry/exporter-prometheus'),
  ]);
  const exporter = new PrometheusExporter({
    preventServerStart: true,
    withoutTargetInfo: true,
    withoutScopeInfo: true,
  });
  if (config.tracesEndpoint !== null) {
    process.env['OTEL_TRACES_EXPORTER'] = 'otlp';
    process.env['OTEL_EXPORTER_OTLP_ENDPOINT'] = config.tracesEndpoint;
  }
  const sdk = startNodeSdk({
    metricReaders: [exporter],
    logRecordProcessors: [],
    // left out, the exporter is made from the environment above; an empty list means that nothing leaves the process
    ...(config.tracesEndpoint === null ? { spanProcessors: [] } : {}),
    resourceDetectors: [],
    resourceAttributes: { 'service.name': 'tidemark', 'service.version': version },
  });
  observe(api.metrics.getMeter('tidemark', version), status);
  const server = config.listen === null ? undefined : await serveMetrics(config.listen, exporter);
  const tracer = api.trace.getTracer('tidemark', version);
  return {
    metricsUrl: server === undefined ? null : urlOf(server),
    trace: (name, attributes, work) =>
      tracer.startActiveSpan(name, { attributes }, async (span) => {
        try {
          return await work();
        } catch (error) {
          span.setStatus({
            code: api.SpanStatusCode.ERROR,
            message: error instanceof Error ? error.message : 'failed',
          });
          throw error;
        } finally {
          span.end();
        }
      }),
    close: async () => {
      server?.closeAllConnections();
      server?.close();
      const gaveUp = new Promise<void>((resolve) => setTimeout(resolve, CLOSE_WAIT_MS).unref());
      // the last spans may find no collector: the stop goes on without them
      await Promise.race([sdk.shutdown().catch(() => undefined), gaveUp]);
    },
  };
}

/** One status per scrape feeds every instrument. */
function observe(meter: Meter, status: () => StatusReply): void {
  const instruments = METRICS.map((definition) => {
    const options = { description: definition.help };
    const instrument =
      definition.kind === 'counter'
        ? meter.createObservableCounter(definition.name, options)
        : meter.createObservableGauge(definition.name, options);
    return { definition, instrument };
  });
  meter.addBatchObservableCallback(
    (result) => {
      const now = status();
      for (const { definition, instrument } of instruments) {
        for (const { value, labels } of definition.read(now)) result.observe(instrument, value, labels);
      }
    },
    instruments.map(({ instrument }) => instrument),
  );
}

interface MetricsPage {
  getMetricsRequestHandler(request: http.IncomingMessage, response: http.ServerResponse): void;
}

async function serveMetrics(listen: { host: string; port: number }, page: MetricsPage): Promise<http.Server> {
  const server = http.createServer((request, response) => {
    if (request.method === 'GET' && request.url?.split('?')[0] === '/metrics') {
      page.getMetricsRequestHandler(request, response);
    } else {
      response.writeHead(404, { 'content-type': 'text/plain' }).end('only GET /metrics is here\n');
    }
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error) => {
      const at = `${listen.host}:${listen.port}`;
      reject(new TidemarkError('config-invalid', `metrics.listen: ${at}: ${error.message}`, { cause: error }));
    });
    server.listen(listen.port, listen.host, resolve);
  });
  server.unref();
  return server;
}

function urlOf(server: http.Server): string {
  const { address, port, family } = server.address() as AddressInfo;
  return `http://${family === 'IPv6' ? `[${address}]` : address}:${port}/metrics`;
}
