// Show of hands: polls that everybody watches live. Polls live in memory; a restart forgets
// them. Listens on $PORT (default 8080) until SIGTERM or SIGINT.

import { buildApp } from "./app.js";
import { Polls } from "./polls.js";
import { port } from "./port.js";

const polls = new Polls();
polls.create("Tabs or spaces?", ["Tabs", "Spaces", "Whatever the formatter says"]);

const app = buildApp(polls, { logger: { level: "info" }, disableRequestLogging: true });

// As PID 1 of a container Node gets no default handlers: without these lines SIGTERM would
// do nothing, and the runtime would wait and kill.
for (const signal of ["SIGTERM", "SIGINT"] as const) {
  process.once(signal, () => {
    app.log.info(`${signal}: shutting down`);
    void app.close();
  });
}

await app.listen({ port, host: "0.0.0.0" });
