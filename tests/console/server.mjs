// The server beside the browser: devices that come and go, commands of the operator, codes of second factors.

import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { connect } from "node:net";
import { createInterface } from "node:readline";

import { SOON_MS, tcp, url } from "./browser.mjs";

/** Logins of the demo. */
export const OPERATOR = { username: "operator@basicorg.example", password: "demo-operator-password" };
export const VIEWER = { username: "viewer@basicorg.example", password: "demo-viewer-password" };
export const ADMIN = { username: "admin@devicewise.com", password: "demo-admin-password" };
const BASIC = "demo-token-basicorg";
/** The token of the other organisation's things. */
export const YORK = "demo-token-yorkorg";

/** A thing that is connected over TCP until `leave`; `left` is done when either side has closed. */
export async function device(thingKey, appToken = BASIC) {
  const [, host, port] = tcp.match(/^\[?(.*?)\]?:(\d+)$/);
  const socket = connect({ host, port: Number(port) });
  socket.setTimeout(6 * SOON_MS);
  const left = new Promise((resolve) => socket.once("close", resolve));
  const lines = createInterface({ input: socket })[Symbol.asyncIterator]();
  const ask = async (request) => {
    socket.write(`${JSON.stringify(request)}\n`);
    const { value } = await lines.next();
    return JSON.parse(value);
  };
  const params = { thingKey, appToken, appId: "console" };
  const { auth } = await ask({ auth: { command: "api.authenticate", params } });
  assert.ok(auth.success, JSON.stringify(auth));
  return {
    left,
    run: (command, params) => ask({ cmd: { command, params } }),
    leave() {
      socket.end();
      return left;
    },
  };
}

/** Several of them: `prefix-1` to `prefix-count`. */
export async function fleet(prefix, count, appToken = BASIC) {
  const devices = [];
  for (let index = 1; index <= count; index += 1) {
    devices.push(await device(`${prefix}-${index}`, appToken));
  }
  return devices;
}

/** A login over HTTP, by which commands are sent: `call(command, params)` is the reply's `params`. */
export async function logIn(login) {
  const post = async (path, headers, body) => {
    const answer = await fetch(`${url}${path}`, {
      method: "POST",
      headers: { "content-type": "application/json", ...headers },
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(SOON_MS),
    });
    return answer.json();
  };
  const { auth } = await post("/api", {}, { auth: { command: "api.authenticate", params: login } });
  assert.ok(auth.success, JSON.stringify(auth));
  const authorization = `Bearer ${auth.params.sessionId}`;
  return async (command, params = {}) => {
    const reply = await post(`/rest/_/${command}`, { authorization }, params);
    assert.ok(reply.success, `${command}: ${JSON.stringify(reply)}`);
    return reply.params;
  };
}

const BASE32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/** What an authenticator shows, so many steps of 30 s from now (RFC 6238). */
export function code(secret, steps = 0) {
  const bits = [...secret].map((char) => BASE32.indexOf(char).toString(2).padStart(5, "0")).join("");
  const key = Buffer.from(bits.match(/.{8}/g).map((byte) => Number.parseInt(byte, 2)));
  const time = Buffer.alloc(8);
  time.writeBigUInt64BE(BigInt(Math.floor(Date.now() / 30_000) + steps));
  const hash = createHmac("sha1", key).update(time).digest();
  const offset = hash[19] & 0xf;
  return String((hash.readUInt32BE(offset) & 0x7fff_ffff) % 1_000_000).padStart(6, "0");
}

/** Has whoever started the script do what only it can, such as a restart of the server. */
export function ordered(what) {
  return new Promise((resolve) => {
    process.stdin.once("data", (line) => {
      process.stdin.pause();
      assert.equal(String(line).trim(), what);
      resolve();
    });
    process.stdin.resume();
    console.log(`! ${what}`);
  });
}
