-- Raises a device's confirmed cursor and drops the entries that every device has confirmed.
-- KEYS: meta, entries, sessions, devices, delivered
-- ARGV: epoch, device, cursor, idle_ms, devices_max, kept_ms
if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then
    return 0
end
local head = tonumber(redis.call('HGET', KEYS[1], 'head'))
local cursor = math.min(tonumber(ARGV[3]), head)
local before = redis.call('HGET', KEYS[4], ARGV[2])
local has_room = before or redis.call('HLEN', KEYS[4]) < tonumber(ARGV[5])
if has_room and cursor > tonumber(before or '-1') then
    redis.call('HSET', KEYS[4], ARGV[2], cursor)
    local first = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1)
    local oldest = first[1] and tonumber(string.match(first[1][1], '^%d+')) or head + 1
    local least = cursor
    local devices = redis.call('HGETALL', KEYS[4])
    for i = 1, #devices, 2 do
        local other = tonumber(devices[i + 1])
        if other < oldest - 1 and devices[i] ~= ARGV[2] then
            -- It can't resume any more, so nothing is kept for it. Else a device that never comes back would
            -- hold every inbox of its user at its bound.
            redis.call('HDEL', KEYS[4], devices[i])
        else
            least = math.min(least, other)
        end
    end
    redis.call('XTRIM', KEYS[2], 'MINID', (least + 1) .. '-0')
end
for i = 1, 5 do
    local left = redis.call('PTTL', KEYS[i])
    if left ~= -2 and left < tonumber(ARGV[4]) then
        redis.call('PEXPIRE', KEYS[i], ARGV[6])
    end
end
return 1
