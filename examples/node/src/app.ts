// The routes of the service:
//
//   GET  /                       the page
//   GET  /healthz                ok
//   GET  /api/polls              all polls
//   POST /api/polls              {"question": …, "options": […, …]}
//   GET  /api/polls/:id          one poll
//   POST /api/polls/:id/votes    {"option": 0}
//   GET  /api/polls/:id/events   the poll after each vote, as server-sent events

import { readFileSync } from "node:fs";
import type { ServerResponse } from "node:http";
import type { Socket } from "node:net";
import Fastify, { type FastifyInstance, type FastifyServerOptions } from "fastify";
import { type Poll, Polls } from "./polls.js";

// Compiled, this file is dist/src/app.js.
const page = readFileSync(new URL("../../page.html", import.meta.url), "utf8");

const newPoll = {
  body: {
    type: "object",
    required: ["question", "options"],
    additionalProperties: false,
    properties: {
      question: { type: "string", minLength: 1, maxLength: 200 },
      options: {
        type: "array",
        minItems: 2,
        maxItems: 10,
        uniqueItems: true,
        items: { type: "string", minLength: 1, maxLength: 100 },
      },
    },
  },
};

const newVote = {
  body: {
    type: "object",
    required: ["option"],
    additionalProperties: false,
    properties: { option: { type: "integer", minimum: 0 } },
  },
};

const noSuchPoll = { error: "no such poll" };

interface ById {
  Params: { id: string };
}

export function buildApp(polls: Polls, options: FastifyServerOptions = {}): FastifyInstance {
  // Ajv would turn the number 7 into the option "7"; a mistake should be told, not mended.
  const app = Fastify({ ...options, ajv: { customOptions: { coerceTypes: false } } });
  const streams = new Set<ServerResponse>();

  app.get("/", (_request, reply) => reply.type("text/html; charset=utf-8").send(page));
  app.get("/healthz", (_request, reply) => reply.send("ok\n"));

  app.get("/api/polls", (_request, reply) => reply.send(polls.list()));

  app.post<{ Body: { question: string; options: string[] } }>(
    "/api/polls",
    { schema: newPoll },
    (request, reply) => {
      const poll = polls.create(request.body.question, request.body.options);
      return reply.code(201).header("location", `/api/polls/${poll.id}`).send(poll);
    },
  );

  app.get<ById>("/api/polls/:id", (request, reply) => {
    const poll = polls.get(request.params.id);
    return poll ? reply.send(poll) : reply.code(404).send(noSuchPoll);
  });

  app.post<ById & { Body: { option: number } }>(
    "/api/polls/:id/votes",
    { schema: newVote },
    (request, reply) => {
      const poll = polls.vote(request.params.id, request.body.option);
      return poll ? reply.send(poll) : reply.code(404).send({ error: "no such option" });
    },
  );

  app.get<ById>("/api/polls/:id/events", (request, reply) => {
    const poll = polls.get(request.params.id);
    if (!poll) return reply.code(404).send(noSuchPoll);

    reply.hijack();
    const stream = reply.raw;
    stream.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
    const tell = (now: Poll) => stream.write(`data: ${JSON.stringify(now)}\n\n`);
    tell(poll);

    streams.add(stream);
    const unwatch = polls.watch(poll.id, tell);
    stream.on("close", () => {
      unwatch();
      streams.delete(stream);
    });
  });

  // Browsers open connections in advance, and Node waits even for those that never ask.
  const silent = new Set<Socket>();
  app.server.on("connection", (socket) => {
    silent.add(socket);
    socket.once("close", () => silent.delete(socket));
  });
  app.server.on("request", (request) => silent.delete(request.socket));

  // A server that stops waits for what is under way. An event stream never ends by itself.
  app.addHook("preClose", async () => {
    for (const stream of streams) stream.end();
    for (const socket of silent) socket.destroy();
  });

  return app;
}
