// What an application does with mqtt.js: every QoS, a refused filter, retained messages, a session that
// is kept. Prints `done`.
//
//     mqttjs_day.js HOST PORT USER PASSWORD 3|5 [mortal]
//
// With `mortal` it connects with a will, prints `ready`, and waits to be killed.

const assert = require("node:assert/strict");
const mqtt = require("mqtt");

const [host, port, username, password, version, isMortal] = process.argv.slice(2);
const five = version === "5";
const base = `day/mqttjs/${version}`;

// A connected client with its messages: topic, payload, QoS, retain flag.
function connect(id, keep = false, more = {}) {
  const properties = five ? { properties: { sessionExpiryInterval: keep ? 3600 : 0 } } : {};
  const options = { username, password, clean: !keep, reconnectPeriod: 0, ...properties, ...more };
  const clientId = `mqttjs-${id}-${version}`;
  const protocolVersion = five ? 5 : 4;
  const client = mqtt.connect({ host, port: Number(port), clientId, protocolVersion, ...options });
  const messages = [];
  const waiting = [];
  client.on("message", (topic, payload, { qos, retain }) => {
    const message = [topic, payload.toString(), qos, retain];
    const taker = waiting.shift();
    taker ? taker(message) : messages.push(message);
  });
  const next = () =>
    messages.length ? messages.shift() : new Promise((resolve) => waiting.push(resolve));
  return new Promise((resolve, reject) => {
    client.once("connect", ({ sessionPresent }) => resolve({ client, next, sessionPresent }));
    client.once("error", reject);
  });
}

async function day() {
  const { client, next } = await connect("a");
  for (const qos of [0, 1, 2]) {
    const [granted] = await client.subscribeAsync(`${base}/${qos}`, { qos });
    assert.equal(granted.qos, qos);
    await client.publishAsync(`${base}/${qos}`, `with ${qos}`, { qos });
    assert.deepEqual(await next(), [`${base}/${qos}`, `with ${qos}`, qos, false]);
  }
  await assert.rejects(client.subscribeAsync("api/#", { qos: 1 }), /Subscribe error/);
  await client.publishAsync(`${base}/kept`, "old", { qos: 1, retain: true });
  await client.subscribeAsync(`${base}/+`, { qos: 2 });
  assert.deepEqual(await next(), [`${base}/kept`, "old", 1, true]);
  await client.publishAsync(`${base}/kept`, "", { qos: 1, retain: true });
  assert.deepEqual(await next(), [`${base}/kept`, "", 1, false]);
  const before = await connect("kept", true);
  assert.equal(before.sessionPresent, false);
  await before.client.subscribeAsync(`${base}/missed`, { qos: 2 });
  await before.client.endAsync();
  for (const qos of [1, 2]) {
    await client.publishAsync(`${base}/missed`, `with ${qos}`, { qos });
  }
  const after = await connect("kept", true);
  assert.equal(after.sessionPresent, true);
  for (const qos of [1, 2]) {
    assert.deepEqual(await after.next(), [`${base}/missed`, `with ${qos}`, qos, false]);
  }
  await after.client.endAsync();
  await (await connect("kept")).client.endAsync();
  await client.endAsync();
  console.log("done");
}

async function mortal() {
  await connect("mortal", false, { will: { topic: `${base}/will`, payload: "gone", qos: 1 } });
  console.log("ready");
}

(isMortal ? mortal : day)().catch((error) => {
  console.error(error);
  process.exit(1);
});
