// Polls and their votes, in memory. A poll tells everybody who watches it of each vote.

import { randomUUID } from "node:crypto";

export interface Option {
  readonly text: string;
  votes: number;
}

export interface Poll {
  readonly id: string;
  readonly question: string;
  readonly options: Option[];
}

type Watcher = (poll: Poll) => void;

// Enough for an afternoon of meetings; after that the oldest poll makes room.
const MOST_POLLS = 1000;

export class Polls {
  // A Map keeps the order of insertion, so the first key is the oldest poll.
  readonly #polls = new Map<string, Poll>();
  readonly #watchers = new Map<string, Set<Watcher>>();

  create(question: string, options: readonly string[]): Poll {
    const poll = { id: randomUUID(), question, options: options.map((text) => ({ text, votes: 0 })) };
    this.#polls.set(poll.id, poll);
    if (this.#polls.size > MOST_POLLS) this.#forgetOldest();
    return poll;
  }

  get(id: string): Poll | undefined {
    return this.#polls.get(id);
  }

  list(): Poll[] {
    return [...this.#polls.values()];
  }

  // Counts a vote for the option at `index` and returns the poll; undefined if there is no
  // such option.
  vote(id: string, index: number): Poll | undefined {
    const poll = this.#polls.get(id);
    const option = poll?.options[index];
    if (!poll || !option) return undefined;
    option.votes += 1;
    for (const watcher of this.#watchers.get(id) ?? []) watcher(poll);
    return poll;
  }

  // Calls `watcher` after each vote until the returned function is called.
  watch(id: string, watcher: Watcher): () => void {
    const watchers = this.#watchers.get(id) ?? new Set();
    this.#watchers.set(id, watchers.add(watcher));
    return () => {
      watchers.delete(watcher);
      if (watchers.size === 0) this.#watchers.delete(id);
    };
  }

  #forgetOldest(): void {
    for (const id of this.#polls.keys()) {
      this.#polls.delete(id);
      return;
    }
  }
}
