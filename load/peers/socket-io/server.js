// A chat server as a careful team writes it with Socket.IO: a token at the handshake, a room for each conversation,
// one statement for each message, the answer after the commit, the Redis adapter between processes.

import { createServer } from "node:http";
import { createAdapter } from "@socket.io/redis-adapter";
import { Redis } from "ioredis";
import jwt from "jsonwebtoken";
import { Server } from "socket.io";
import { Store } from "./store.js";

const TEXT_BYTES_MAX = 8192;
const FRAME_BYTES_MAX = 32768;
const CONVERSATIONS_MAX = 100;
const STOP_DEADLINE_MS = 5000;
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

const { PORT, DATABASE_URL, REDIS_URL, TOKEN_SECRET } = process.env;
const store = new Store(DATABASE_URL);
const publisher = new Redis(REDIS_URL);
const subscriber = publisher.duplicate();
const http = createServer();
const io = new Server(http, {
  adapter: createAdapter(publisher, subscriber),
  transports: ["websocket"],
  perMessageDeflate: false,
  httpCompression: false,
  serveClient: false,
  maxHttpBufferSize: FRAME_BYTES_MAX,
});

for (const redis of [publisher, subscriber]) {
  redis.on("error", (error) => console.error("redis:", error.message));
}

// The request of the handshake is kept for each connection otherwise, with its headers.
io.engine.on("connection", (connection) => {
  connection.request = null;
});

io.use((socket, next) => {
  try {
    const { sub } = jwt.verify(String(socket.handshake.auth.token), TOKEN_SECRET, { algorithms: ["HS256"] });
    socket.data.userId = sub;
    next();
  } catch {
    next(new Error("unauthenticated"));
  }
});

// Before the client hears that it is connected, so that it misses nothing from then on.
io.use(async (socket, next) => {
  try {
    socket.join(Object.keys(await store.positions(socket.data.userId)));
    next();
  } catch (error) {
    console.error("connect:", error.message);
    next(new Error("unavailable"));
  }
});

io.on("connection", (socket) => {
  answer(socket, "send", isSend, (message) => send(socket, message));
  answer(socket, "sync", isSync, ({ since }) => sync(socket, since));
});

// Every event has one argument and one answer, which is an error or a result.
function answer(socket, event, isValid, handle) {
  socket.on(event, async (request, reply) => {
    if (typeof reply !== "function") return;
    if (!isValid(request)) return reply({ error: "invalid" });
    try {
      reply(await handle(request));
    } catch (error) {
      console.error(`${event}:`, error.message);
      reply({ error: "unavailable" });
    }
  });
}

async function send(socket, { conversation_id, message_id, text }) {
  const sender_id = socket.data.userId;
  const stored = await store.append(conversation_id, message_id, sender_id, text);
  if (!stored.is_member) return { error: "forbidden" };
  const { seq, sent_at } = stored;
  if (!stored.is_repeat) {
    socket.to(conversation_id).emit("message", { conversation_id, message_id, sender_id, seq, sent_at, text });
  }
  return { seq, sent_at };
}

// What a client asks for when it has connected, with how far it has each conversation. The positions are for those it
// doesn't have; what is in their numbers it fetches when they are opened.
async function sync(socket, since) {
  const positions = await store.positions(socket.data.userId);
  const known = Object.entries(since).filter(([id]) => id in positions);
  const { messages, has_more } = await store.missed(known);
  return { positions, messages, has_more };
}

function isSend(request) {
  return (
    isId(request?.conversation_id) &&
    isId(request.message_id) &&
    typeof request.text === "string" &&
    request.text.length > 0 &&
    Buffer.byteLength(request.text) <= TEXT_BYTES_MAX
  );
}

function isSync(request) {
  const since = request?.since;
  if (typeof since !== "object" || since === null) return false;
  const positions = Object.entries(since);
  return (
    positions.length <= CONVERSATIONS_MAX &&
    positions.every(([id, seq]) => isId(id) && Number.isSafeInteger(seq) && seq >= 0)
  );
}

function isId(value) {
  return typeof value === "string" && UUID.test(value);
}

// Clients that don't answer a goodbye are not waited for.
async function stop() {
  setTimeout(() => process.exit(0), STOP_DEADLINE_MS).unref();
  await io.close();
  publisher.disconnect();
  subscriber.disconnect();
  await store.close();
}

process.once("SIGTERM", stop);
process.once("SIGINT", stop);

// Answered after the adapter's subscriptions, without which messages of the other process would be missed.
await subscriber.ping();
http.listen(Number(PORT), "127.0.0.1", 4096);
