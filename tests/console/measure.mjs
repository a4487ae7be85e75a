// What the list of sessions costs a browser, beside pages of the same size that nothing happens on:
//
//     node tests/console/measure.mjs HTTP_URL TCP_ADDRESS [SECONDS]
//
// against a server whose load is made elsewhere. `live` follows the stream; `past` is the same list as it was at a
// time, which has the script but no stream; `bare` has no script. All three are open at once, each in a window of its
// own, and their main threads are watched for the same time. What the stream brings is counted in one more, `counted`:
// a page's main thread has to tell DevTools all of it.

import { profile, script, url } from "./browser.mjs";
import { SESSIONS, at, isLive } from "./console.mjs";
import { figures, wire } from "./figures.mjs";
import { OPERATOR } from "./server.mjs";

const seconds = Number(process.argv[4] ?? 30);

/** Bytes and messages that the stream has brought so far. */
async function stream(page) {
  const client = await page.context().newCDPSession(page);
  const found = { bytes: 0, messages: 0 };
  const streams = new Set();
  await client.send("Network.enable");
  client.on("Network.responseReceived", ({ requestId, response }) => {
    if (new URL(response.url).pathname === "/events") streams.add(requestId);
  });
  client.on("Network.dataReceived", ({ requestId, dataLength, encodedDataLength }) => {
    if (streams.has(requestId)) found.bytes += encodedDataLength || dataLength;
  });
  client.on("Network.eventSourceMessageReceived", () => (found.messages += 1));
  return found;
}

script(async () => {
  const login = await at(SESSIONS, OPERATOR);
  const storageState = await login.context().storageState();
  await login.close();
  const open = async (path, options) => {
    const page = await (await profile({ storageState, ...options })).newPage();
    const loaded = await wire(page);
    await page.goto(path, { waitUntil: "load" });
    return { page, loaded };
  };
  const past = new Date().toISOString().slice(0, 19);
  const pages = {
    live: await open(SESSIONS),
    past: await open(`${SESSIONS}?asOf=${past}`),
    bare: await open(SESSIONS, { javaScriptEnabled: false }),
  };
  const counted = await (await profile({ storageState })).newPage();
  const followed = await stream(counted);
  await counted.goto(SESSIONS, { waitUntil: "load" });
  await Promise.all([pages.live.page, counted].map(isLive));
  const { requests, bytes, of } = pages.live.loaded();
  console.log(`first screen of ${url}: ${requests} requests, ${bytes} bytes (${of.join(", ")})`);
  const before = {};
  for (const [name, { page }] of Object.entries(pages)) before[name] = await figures(page);
  await Promise.all(Object.values(pages).map(({ loaded }) => loaded.end()));
  const begun = { ...followed };
  await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
  for (const [name, { page }] of Object.entries(pages)) {
    const after = await figures(page);
    const share = (of) => `${(((of(after) - of(before[name])) / seconds) * 100).toFixed(2)} %`;
    const parts = Object.keys(after.parts_s).map((part) => `${part} ${share(({ parts_s }) => parts_s[part])}`);
    const heap = (after.heap / 1e6).toFixed(2);
    console.log(
      `${name}: main thread ${share(({ busy_s }) => busy_s)} (${parts.join(", ")}), ` +
        `heap ${heap} MB, ${after.nodes} nodes`,
    );
  }
  const { bytes: streamed, messages } = followed;
  const perSecond = (value) => (value / seconds).toFixed(1);
  console.log(
    `stream: ${perSecond((streamed - begun.bytes) / 1000)} kB/s, ` +
      `${perSecond(messages - begun.messages)} messages/s`,
  );
});
