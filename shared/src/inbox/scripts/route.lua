-- Appends an event to a user's inbox and says which gateways hold their sessions.
-- KEYS: meta, entries, sessions
-- ARGV: event, entries_max, idle_ms
-- Returns: nothing if the user has no inbox; else epoch, cursor, then "gateway device" of each session.
local epoch = redis.call('HGET', KEYS[1], 'epoch')
if not epoch then
    return {}
end
local cursor = redis.call('HINCRBY', KEYS[1], 'head', 1)
redis.call('XADD', KEYS[2], 'MAXLEN', ARGV[2], cursor .. '-0', 'event', ARGV[1])
for i = 1, 3 do
    redis.call('PEXPIRE', KEYS[i], ARGV[3])
end
local answer = redis.call('HVALS', KEYS[3])
table.insert(answer, 1, tostring(cursor))
table.insert(answer, 1, epoch)
return answer
