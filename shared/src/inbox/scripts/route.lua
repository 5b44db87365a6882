-- Appends an event to a user's inbox and says which gateways hold their sessions.
-- KEYS: meta, entries, sessions
-- ARGV: event, entries_max
-- Returns: nothing if the user has no inbox; else epoch, cursor, then "gateway device" of each session.
local epoch = redis.call('HGET', KEYS[1], 'epoch')
if not epoch then
    return {}
end
local cursor = redis.call('HINCRBY', KEYS[1], 'head', 1)
redis.call('XADD', KEYS[2], 'MAXLEN', ARGV[2], cursor .. '-0', 'event', ARGV[1])
-- Only the user keeps an inbox alive, so the entries go when the rest goes. A key that has just been made has no end.
local left = redis.call('XLEN', KEYS[2]) == 1 and redis.call('PTTL', KEYS[1]) or 0
if left > 0 then
    redis.call('PEXPIRE', KEYS[2], left)
end
local answer = redis.call('HVALS', KEYS[3])
table.insert(answer, 1, tostring(cursor))
table.insert(answer, 1, epoch)
return answer
