// A client with the types that openapi-typescript makes of /openapi.json: it has to compile, which checks
// names and types, and to work. Prints `the client did well`.
//
//     openapi_client.js URL SLUG

import type { components, operations, paths } from "./tr50d";

type Body<O extends keyof operations> = operations[O] extends {
  requestBody?: { content: { "application/json": infer B } };
}
  ? B
  : never;
type Reply<O extends keyof operations> = operations[O] extends {
  responses: { 200: { content: { "application/json": infer R } } };
}
  ? R
  : never;
type Failure = components["schemas"]["Failure"];
type Command = keyof operations & string;

declare const process: { argv: string[]; exit(code: number): never };

const [url, slug] = process.argv.slice(2);

function assert(holds: unknown, what: unknown): asserts holds {
  if (!holds) {
    console.error(what);
    process.exit(1);
  }
}

async function command<O extends Command>(
  name: O,
  body: Body<O>,
  token?: string,
): Promise<Reply<O>> {
  const path: string = `/rest/_/${name}`;
  const headers: Record<string, string> = { "content-type": "application/json" };
  if (token) headers["authorization"] = `Bearer ${token}`;
  const answer = await fetch(url + path, { method: "POST", headers, body: JSON.stringify(body) });
  assert(answer.status === 200, answer);
  return (await answer.json()) as Reply<O>;
}

async function main() {
  const login = await command("api.authenticate", {
    username: "operator@basicorg.example",
    password: "demo-operator-password",
  });
  const token = login.params?.sessionId;
  assert(token, login);
  const made = await command("thing.create", { key: "typed", name: "Typed" }, token);
  assert(made.success, made);
  const sessions = await command("session.list", { limit: 5 }, token);
  assert((sessions.params?.count ?? 0) >= 1, sessions);
  const things = await command("thing.list", {}, token);
  assert((things.params?.count ?? 0) >= 1, things);
  const point: Body<"property.publish"> = { key: "t", value: 1.5, thingKey: "typed" };
  assert((await command("property.publish", point, token)).success, point);
  // @ts-expect-error: the value is a number
  const wrong: Body<"property.publish"> = { key: "t", value: {} };
  assert(wrong, wrong);

  const find: keyof paths = "/rest/_/thing.find";
  const failed = await fetch(`${url}${find}?status=http`, {
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${token}` },
    body: JSON.stringify({ key: "no-such" }),
  });
  const failure = (await failed.json()) as Failure;
  assert(failed.status === 404 && failure.errorCodes[0] === -90008, failure);

  const page = await fetch(`${url}/api/v1/orgs/${slug}/principals`, {
    headers: { authorization: `Bearer ${token}` },
  });
  const { items } = (await page.json()) as { items: components["schemas"]["Principal"][] };
  // The type tells them apart, for the compiler, too.
  const names = items.map((item) => (item.type === "USER" ? item.email : item.externalId));
  assert(names.includes("operator@basicorg.example") && names.includes("demo-app"), names);
  console.log("the client did well");
}

main();
