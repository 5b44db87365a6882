-- Notes whether a user has devices that are registered for notifications.
-- KEYS: meta
-- ARGV: 1 if there are, 0 if none was found; that counts only while nothing else is known
if redis.call('HEXISTS', KEYS[1], 'epoch') == 0 then
    return
end
redis.call(ARGV[1] == '1' and 'HSET' or 'HSETNX', KEYS[1], 'devices', ARGV[1])
