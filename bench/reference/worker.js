// The original's worker in plain form: one order, one transaction, one commit at a time.
//
// It is ready when it has joined its group ("ready"), and says how many orders it has written ("written N")
// once a second and at its end. Statements are prepared once; fsync is PostgreSQL's default.

import { Kafka, logLevel } from 'kafkajs';
import pg from 'pg';

const env = process.env;
const database = new pg.Client({ connectionString: env.REFERENCE_DATABASE });
await database.connect();

const TAKE = {
  name: 'take',
  text: 'UPDATE reference_stock SET sold = sold + $2 WHERE sale = $1 AND sold + $2 <= allotment',
};
const WRITE = {
  name: 'write',
  text:
    'INSERT INTO reference_orders (id, sale, customer, quantity, state, created_at) ' +
    'VALUES ($1, $2, $3, $4, $5, to_timestamp($6::float8 / 1000))',
};

let written = 0;

async function fulfil(order) {
  await database.query('BEGIN');
  try {
    const taken = await database.query({ ...TAKE, values: [order.sale, order.quantity] });
    const state = taken.rowCount === 1 ? 'confirmed' : 'refused';
    await database.query({
      ...WRITE,
      values: [order.order_id, order.sale, order.user_id, order.quantity, state, order.at],
    });
    await database.query('COMMIT');
  } catch (error) {
    await database.query('ROLLBACK');
    throw error;
  }
  written += 1;
}

const kafka = new Kafka({ clientId: 'worker', brokers: env.REFERENCE_BROKERS.split(','), logLevel: logLevel.ERROR });
// The embedded broker answers a join after half of the session, and never wakes a waiting fetch.
const consumer = kafka.consumer({ groupId: 'worker', sessionTimeout: 6000, maxWaitTimeInMs: 20 });

const say = () => console.log(`written ${written}`);
setInterval(say, 1000);

await consumer.connect();
await consumer.subscribe({ topic: env.REFERENCE_TOPIC, fromBeginning: true });
await consumer.run({ eachMessage: async ({ message }) => fulfil(JSON.parse(message.value)) });
console.log('ready');

process.on('SIGTERM', async () => {
  await consumer.disconnect();
  await database.end();
  say();
  process.exit(0);
});
