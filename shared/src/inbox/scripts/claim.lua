-- Claims a notification until its occasion is too old to be notified of.
-- KEYS: the user's claims; a score is twice the end of a claim in ms, and one more once the notification was sent
-- ARGV: occasion and device, until_ms, claims_max
-- Returns: '' if it was free, 'sending', or 'sent'.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', 2 * now)
local before = redis.call('ZSCORE', KEYS[1], ARGV[1])
if before then
    return tonumber(before) % 2 == 1 and 'sent' or 'sending'
end
local left = math.max(tonumber(ARGV[2]) - now, 1)
redis.call('ZADD', KEYS[1], 2 * (now + left), ARGV[1])
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -1 - tonumber(ARGV[3]))
if redis.call('PTTL', KEYS[1]) < left then
    redis.call('PEXPIRE', KEYS[1], left)
end
return ''
