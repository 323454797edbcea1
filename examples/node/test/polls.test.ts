import assert from "node:assert/strict";
import { test } from "node:test";
import { Polls } from "../src/polls.js";

test("a vote counts for its option only", () => {
  const polls = new Polls();
  const { id } = polls.create("Tea?", ["yes", "no"]);
  assert.deepEqual(polls.vote(id, 1)?.options.map((option) => option.votes), [0, 1]);
});

test("a vote for what is not there counts for nothing", () => {
  const polls = new Polls();
  const { id } = polls.create("Tea?", ["yes", "no"]);
  assert.equal(polls.vote(id, 2), undefined);
  assert.equal(polls.vote("nowhere", 0), undefined);
  assert.deepEqual(polls.get(id)?.options.map((option) => option.votes), [0, 0]);
});

test("whoever watches is told until they stop", () => {
  const polls = new Polls();
  const { id } = polls.create("Tea?", ["yes", "no"]);
  const seen: number[] = [];
  const unwatch = polls.watch(id, (poll) => seen.push(poll.options[0]?.votes ?? -1));
  polls.vote(id, 0);
  polls.vote(id, 0);
  unwatch();
  polls.vote(id, 0);
  assert.deepEqual(seen, [1, 2]);
});

test("the oldest poll makes room", () => {
  const polls = new Polls();
  const first = polls.create("First?", ["yes", "no"]);
  for (let n = 0; n < 1000; n += 1) polls.create("Next?", ["yes", "no"]);
  assert.equal(polls.get(first.id), undefined);
  assert.equal(polls.list().length, 1000);
});
