-- Claims a notification for a device.
-- KEYS: the notification's claims
-- ARGV: device, kept_ms
-- Returns: what stood there: '' if it was free, 'sending', or 'sent'.
local before = redis.call('HGET', KEYS[1], ARGV[1])
if not before then
    redis.call('HSET', KEYS[1], ARGV[1], 'sending')
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return before or ''
