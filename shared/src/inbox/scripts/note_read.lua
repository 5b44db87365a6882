-- Notes how far a user has read a conversation.
-- KEYS: how far they have read which conversations
-- ARGV: conversation, number, kept_ms, conversations_max
-- Returns: conversation and number of each that is known.
local before = redis.call('HGET', KEYS[1], ARGV[1])
if not before and redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[4]) then
    redis.call('DEL', KEYS[1])
end
if not before or tonumber(before) < tonumber(ARGV[2]) then
    redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return redis.call('HGETALL', KEYS[1])
