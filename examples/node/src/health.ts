// Asks the running service whether it is well and exits 0 or 1: the image's HEALTHCHECK.

import { port } from "./port.js";

try {
  const answer = await fetch(`http://127.0.0.1:${port}/healthz`, { signal: AbortSignal.timeout(2000) });
  process.exitCode = answer.ok ? 0 : 1;
} catch (error) {
  console.error(error);
  process.exitCode = 1;
}
