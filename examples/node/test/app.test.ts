import assert from "node:assert/strict";
import { once } from "node:events";
import { type AddressInfo, connect } from "node:net";
import { test } from "node:test";
import { buildApp } from "../src/app.js";
import { Polls } from "../src/polls.js";

const tea = { question: "Tea?", options: ["yes", "no"] };

test("a poll is made, read and voted on", async () => {
  const app = buildApp(new Polls());
  const made = await app.inject({ method: "POST", url: "/api/polls", payload: tea });
  assert.equal(made.statusCode, 201);
  const url = made.headers.location as string;

  const voted = await app.inject({ method: "POST", url: `${url}/votes`, payload: { option: 0 } });
  assert.equal(voted.statusCode, 200);

  const read = await app.inject({ url });
  assert.deepEqual(read.json().options, [{ text: "yes", votes: 1 }, { text: "no", votes: 0 }]);
});

test("each mistake has its status", async () => {
  const polls = new Polls();
  const app = buildApp(polls);
  const votes = `/api/polls/${polls.create("Tea?", ["yes", "no"]).id}/votes`;
  const cases: [string, object, number][] = [
    ["/api/polls", {}, 400],
    ["/api/polls", { ...tea, options: ["only one"] }, 400],
    ["/api/polls", { ...tea, options: ["twice", "twice"] }, 400],
    ["/api/polls", { ...tea, options: ["text", 7] }, 400],
    ["/api/polls", { ...tea, question: "?".repeat(201) }, 400],
    [votes, { option: -1 }, 400],
    [votes, { option: "0" }, 400],
    [votes, { option: 2 }, 404],
    ["/api/polls/nowhere/votes", { option: 0 }, 404],
  ];
  for (const [url, payload, status] of cases) {
    const answer = await app.inject({ method: "POST", url, payload });
    assert.equal(answer.statusCode, status, `${url} ${JSON.stringify(payload)}`);
  }
  assert.equal((await app.inject({ url: "/api/polls/nowhere" })).statusCode, 404);
  assert.equal((await app.inject({ url: "/api/polls/nowhere/events" })).statusCode, 404);
});

test("the page and the health check answer", async () => {
  const app = buildApp(new Polls());
  const page = await app.inject({ url: "/" });
  assert.match(page.headers["content-type"] as string, /^text\/html/);
  assert.match(page.body, /Show of hands/);
  assert.equal((await app.inject({ url: "/healthz" })).body, "ok\n");
});

test("a watcher is told of a vote, and does not keep the server from stopping", async () => {
  const polls = new Polls();
  const app = buildApp(polls);
  const { id } = polls.create("Tea?", ["yes", "no"]);
  await app.listen({ port: 0, host: "127.0.0.1" });
  const { port } = app.server.address() as AddressInfo;

  const stream = await fetch(`http://127.0.0.1:${port}/api/polls/${id}/events`);
  let told = "";
  const reading = (async () => {
    const decoder = new TextDecoder();
    for await (const chunk of stream.body as unknown as AsyncIterable<Uint8Array>) {
      told += decoder.decode(chunk, { stream: true });
    }
  })();
  polls.vote(id, 0);
  await app.close();
  await reading;

  const votes = [...told.matchAll(/^data: (.*)$/gm)].map(([, json]) => JSON.parse(json ?? "").options[0].votes);
  assert.deepEqual(votes, [0, 1]);
});

test("a connection that never asks does not keep the server from stopping", async () => {
  const app = buildApp(new Polls());
  await app.listen({ port: 0, host: "127.0.0.1" });
  const { port } = app.server.address() as AddressInfo;
  const accepted = once(app.server, "connection");
  const connection = connect(port, "127.0.0.1");
  connection.on("error", () => {});
  await accepted;
  const closed = once(connection, "close");
  await app.close();
  await closed;
});
