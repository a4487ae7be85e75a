// What a page costs: bytes and requests of its first view, its heap, its main thread.

/** Follows what a page loads, except the stream: how many requests, how many bytes of answers with their headers. */
export async function wire(page) {
  const client = await page.context().newCDPSession(page);
  const loaded = new Map();
  await client.send("Network.enable");
  client.on("Network.responseReceived", ({ requestId, response }) => {
    const { protocol, pathname } = new URL(response.url);
    if (protocol.startsWith("http") && pathname !== "/events") loaded.set(requestId, { pathname, bytes: 0 });
  });
  client.on("Network.loadingFinished", ({ requestId, encodedDataLength }) => {
    const found = loaded.get(requestId);
    if (found) found.bytes = encodedDataLength;
  });
  const found = () => {
    const all = [...loaded.values()];
    const bytes = all.reduce((sum, one) => sum + one.bytes, 0);
    return { requests: all.length, bytes, of: all.map((one) => `${one.pathname} ${one.bytes}`) };
  };
  // What is asked for later is not noted.
  found.end = () => client.detach();
  return found;
}

/** By page: what is counted begins with the session of DevTools, so there is one. */
const clients = new WeakMap();

async function client(page) {
  let client = clients.get(page);
  if (!client) {
    client = await page.context().newCDPSession(page);
    // CPU time: what the page waits for a core that others have is not its own.
    await client.send("Performance.enable", { timeDomain: "threadTicks" });
    clients.set(page, client);
  }
  return client;
}

/**
 * Bytes that a page's heap has after a collection, and CPU seconds of its main thread since it was first asked, in
 * all and of its parts.
 */
export async function figures(page) {
  const devtools = await client(page);
  await devtools.send("HeapProfiler.collectGarbage");
  const { metrics } = await devtools.send("Performance.getMetrics");
  const value = (wanted) => metrics.find(({ name }) => name === wanted).value;
  return {
    heap: value("JSHeapUsedSize"),
    nodes: value("Nodes"),
    busy_s: value("TaskDuration"),
    parts_s: {
      script: value("ScriptDuration"),
      style: value("RecalcStyleDuration"),
      layout: value("LayoutDuration"),
    },
  };
}
