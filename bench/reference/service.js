// The service that Flux-Gate is measured against: Fastify, ioredis, kafkajs. Two forms of one API.
//
//   designed  what the original flash-sale design does per order: count the attempt, look up the key,
//             run the script, await one produce, store the key. One call after the other.
//   tuned     the same decision in one script call, with ioredis' automatic pipelining, and records
//             that are gathered into one produce.
//
// Nothing in here is slow on purpose: no logger, schemas for request and answers (so Fastify compiles
// validation and serialisation), keep-alive, constant options. Both forms await the broker's
// acknowledgement (acks=-1) before they answer 202, and neither checks who is asking.

import { readFileSync } from 'node:fs';
import { randomUUID } from 'node:crypto';
import Fastify from 'fastify';
import Redis from 'ioredis';
import { CompressionTypes, Kafka, logLevel } from 'kafkajs';

const env = process.env;
const FORM = env.REFERENCE_FORM;
const RATE = Number(env.REFERENCE_RATE); // attempts admitted per second
const LIMIT = Number(env.REFERENCE_LIMIT); // units per customer and sale
const TOPIC = env.REFERENCE_TOPIC;
const DAY = 86_400;

const script = (name) => readFileSync(new URL(`./${name}.lua`, import.meta.url), 'utf8');
const redis = new Redis(env.REFERENCE_REDIS, { enableAutoPipelining: FORM === 'tuned' });
redis.defineCommand('takeDesigned', { numberOfKeys: 2, lua: script('designed') });
redis.defineCommand('takeTuned', { numberOfKeys: 4, lua: script('tuned') });

const kafka = new Kafka({ clientId: 'reference', brokers: env.REFERENCE_BROKERS.split(','), logLevel: logLevel.ERROR });
const producer = kafka.producer({ allowAutoTopicCreation: false });

const counted = { accepted: 0, replayed: 0, sold_out: 0, limit_reached: 0, turned_away: 0, failed: 0 };

// Redis decides; the outcome is a word, or the id of the order that this key has been granted before.
async function decideDesigned(sale, user, quantity, key) {
  const second = `attempts:${sale}:${Math.floor(Date.now() / 1000)}`;
  const count = await redis.incr(second);
  if (count === 1) await redis.expire(second, 5);
  if (count > RATE) return 'turned_away';
  const known = await redis.get(`key:${sale}:${key}`);
  if (known !== null) return known;
  const taken = await redis.takeDesigned(`stock:${sale}`, `bought:${sale}`, user, quantity, LIMIT);
  return taken === 1 ? 'taken' : taken === 0 ? 'sold_out' : 'limit_reached';
}

const WORDS = new Map([[1, 'taken'], [0, 'sold_out'], [-1, 'limit_reached'], [-2, 'turned_away']]);

async function decideTuned(sale, user, quantity, key, id) {
  const second = `attempts:${sale}:${Math.floor(Date.now() / 1000)}`;
  const answer = await redis.takeTuned(
    second, `key:${sale}:${key}`, `stock:${sale}`, `bought:${sale}`, user, quantity, LIMIT, RATE, id,
  );
  return WORDS.get(answer) ?? answer;
}

function produceOne(message) {
  return producer.send({ topic: TOPIC, acks: -1, messages: [message] });
}

// Gathers what arrives within about a millisecond and sends it as one batch.
let gathered = [];
let waiting = [];

function produceGathered(message) {
  gathered.push(message);
  if (gathered.length === 1) setTimeout(flush, 1);
  return new Promise((resolve, reject) => waiting.push([resolve, reject]));
}

function flush() {
  const messages = gathered;
  const told = waiting;
  gathered = [];
  waiting = [];
  producer.sendBatch({ acks: -1, compression: CompressionTypes.None, topicMessages: [{ topic: TOPIC, messages }] }).then(
    () => { for (const [resolve] of told) resolve(); },
    (error) => { for (const [, reject] of told) reject(error); },
  );
}

const decide = FORM === 'tuned' ? decideTuned : decideDesigned;
const produce = FORM === 'tuned' ? produceGathered : produceOne;

const app = Fastify({ logger: false, keepAliveTimeout: 30_000 });

const order = {
  type: 'object',
  properties: { order_id: { type: 'string' }, state: { type: 'string' }, sale: { type: 'string' }, quantity: { type: 'integer' } },
};
const problem = { type: 'object', properties: { error: { type: 'string' } } };
const schema = {
  body: {
    type: 'object',
    required: ['user_id', 'quantity'],
    additionalProperties: false,
    properties: {
      user_id: { type: 'string', minLength: 1, maxLength: 255 },
      quantity: { type: 'integer', minimum: 1 },
    },
  },
  headers: { type: 'object', required: ['idempotency-key'], properties: { 'idempotency-key': { type: 'string' } } },
  response: { 202: order, 409: problem, 503: problem },
};

app.post('/api/v1/sales/:sale/orders', { schema }, async (request, reply) => {
  const { sale } = request.params;
  const { user_id: user, quantity } = request.body;
  const key = request.headers['idempotency-key'];
  const id = randomUUID();
  const outcome = await decide(sale, user, quantity, key, id);
  switch (outcome) {
    case 'turned_away':
      counted.turned_away += 1;
      return reply.redirect(`/waiting-room?sale=${sale}`, 302);
    case 'sold_out':
    case 'limit_reached':
      counted[outcome] += 1;
      return reply.code(409).send({ error: outcome });
    case 'taken':
      break;
    default:
      counted.replayed += 1;
      return reply.code(202).send({ order_id: outcome, state: 'queued', sale, quantity });
  }
  const value = JSON.stringify({ order_id: id, sale, user_id: user, quantity, at: Date.now() });
  try {
    await produce({ key: sale, value });
    if (FORM === 'designed') await redis.set(`key:${sale}:${key}`, id, 'EX', DAY);
  } catch (error) {
    counted.failed += 1;
    return reply.code(503).send({ error: 'unavailable' });
  }
  counted.accepted += 1;
  return reply.code(202).send({ order_id: id, state: 'queued', sale, quantity });
});

app.get('/stats', async () => counted);

await producer.connect();
await app.listen({ host: '127.0.0.1', port: Number(env.REFERENCE_PORT) });

process.on('SIGTERM', async () => {
  await app.close();
  await producer.disconnect();
  await redis.quit();
  process.exit(0);
});
