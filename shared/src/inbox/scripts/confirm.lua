-- Raises a device's confirmed cursor and drops the entries that every device has confirmed.
-- KEYS: meta, entries, sessions, devices
-- ARGV: epoch, device, cursor, idle_ms
if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then
    return 0
end
local cursor = math.min(tonumber(ARGV[3]), tonumber(redis.call('HGET', KEYS[1], 'head')))
local before = tonumber(redis.call('HGET', KEYS[4], ARGV[2]) or '-1')
if cursor > before then
    redis.call('HSET', KEYS[4], ARGV[2], cursor)
    local least = cursor
    for _, other in ipairs(redis.call('HVALS', KEYS[4])) do
        least = math.min(least, tonumber(other))
    end
    redis.call('XTRIM', KEYS[2], 'MINID', (least + 1) .. '-0')
end
for i = 1, 4 do
    redis.call('PEXPIRE', KEYS[i], ARGV[4])
end
return 1
