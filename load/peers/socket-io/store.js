// PostgreSQL: every statement, prepared once for each connection of the pool.

import pg from "pg";

const CONNECTIONS_MAX = 20;
const MISSED_MAX = 500;
const UNIQUE_VIOLATION = "23505";

// Numbers and times as JavaScript has them; none here comes near 2^53.
pg.types.setTypeParser(pg.types.builtins.INT8, Number);

// One round trip: is the sender in it, is this a repeat, take the next number, store. The conversation's row is
// locked until the commit, so numbers have no holes.
const APPEND = `
with member as (
  select from participants where conversation_id = $1 and user_id = $3
), earlier as (
  select seq, sent_at from messages
  where conversation_id = $1 and message_id = $2 and exists (select from member)
), numbered as (
  update conversations set last_seq = last_seq + 1
  where conversation_id = $1 and exists (select from member) and not exists (select from earlier)
  returning last_seq
), stored as (
  insert into messages (conversation_id, seq, message_id, sender_id, text)
  select $1, last_seq, $2, $3, $4 from numbered
  returning seq, sent_at
), known as (
  select seq, sent_at, false as is_repeat from stored
  union all
  select seq, sent_at, true from earlier
)
select exists (select from member) as is_member, is_repeat, seq, (extract(epoch from sent_at) * 1000)::bigint as sent_at
from (select) as one left join known on true`;

const POSITIONS = `
select conversation_id, last_seq
from participants join conversations using (conversation_id)
where user_id = $1`;

const MISSED = `
select conversation_id, seq, message_id, sender_id, (extract(epoch from sent_at) * 1000)::bigint as sent_at, text
from unnest($1::uuid[], $2::bigint[]) as position (conversation_id, since)
join messages using (conversation_id)
where seq > since
order by conversation_id, seq
limit $3`;

export class Store {
  #pool;

  constructor(url) {
    this.#pool = new pg.Pool({ connectionString: url, max: CONNECTIONS_MAX });
    this.#pool.on("error", (error) => console.error("postgres:", error.message));
  }

  // Two copies of a message at the same time: the second fails, and finds the first when it is repeated.
  async append(conversationId, messageId, senderId, text) {
    const values = [conversationId, messageId, senderId, text];
    const query = { name: "append", text: APPEND, values };
    try {
      return (await this.#pool.query(query)).rows[0];
    } catch (error) {
      if (error.code !== UNIQUE_VIOLATION) throw error;
      return (await this.#pool.query(query)).rows[0];
    }
  }

  // The last number of each conversation of a user.
  async positions(userId) {
    const found = await this.#pool.query({ name: "positions", text: POSITIONS, values: [userId] });
    return Object.fromEntries(found.rows.map((row) => [row.conversation_id, row.last_seq]));
  }

  // In order within each conversation; whoever hears of more asks again from where these end.
  async missed(known) {
    if (known.length === 0) return { messages: [], has_more: false };
    const values = [known.map(([id]) => id), known.map(([, seq]) => seq), MISSED_MAX];
    const found = await this.#pool.query({ name: "missed", text: MISSED, values });
    return { messages: found.rows, has_more: found.rows.length === MISSED_MAX };
  }

  async close() {
    await this.#pool.end();
  }
}
