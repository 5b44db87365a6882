-- Raises a device's confirmed cursor, unless that is -1 for none, and drops the entries that every device has confirmed.
-- KEYS: meta, entries, sessions, devices, delivered
-- ARGV: run, epoch, device, cursor, idle_ms, devices_max, kept_ms
-- Returns: 1, or 0 if the inbox is another one now or has lost entries.
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'run', 'head')
if meta[1] ~= ARGV[2] then
    return 0
end
local head, cursor = tonumber(meta[3]), tonumber(ARGV[4])
if (meta[2] and meta[2] ~= ARGV[1]) or cursor > head then
    -- Before others take the places of the entries that it has lost.
    redis.call('HDEL', KEYS[1], 'epoch', 'devices')
    return 0
end
local before = redis.call('HGET', KEYS[4], ARGV[3])
if cursor > tonumber(before or '-1') then
    enter(ARGV[3], cursor, tonumber(ARGV[6]))
    local first = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1)
    local oldest = first[1] and tonumber(string.match(first[1][1], '^%d+')) or head + 1
    local least = cursor
    local devices = redis.call('HGETALL', KEYS[4])
    for i = 1, #devices, 2 do
        local other = tonumber(devices[i + 1])
        if other < oldest - 1 and devices[i] ~= ARGV[3] then
            -- It can't resume any more, so nothing is kept for it. Else a device that never comes back would
            -- hold every inbox of its user at its bound.
            redis.call('HDEL', KEYS[4], devices[i])
        else
            least = math.min(least, other)
        end
    end
    -- Nor has a session's device that has confirmed nothing yet what came since the session began.
    for _, session in ipairs(redis.call('HVALS', KEYS[3])) do
        local device, begun = string.match(session, '^%S+ (%S+) (%d+)$')
        if device and tonumber(begun) >= oldest - 1 and redis.call('HEXISTS', KEYS[4], device) == 0 then
            least = math.min(least, tonumber(begun))
        end
    end
    redis.call('XTRIM', KEYS[2], 'MINID', (least + 1) .. '-0')
end
for i = 1, 5 do
    local left = redis.call('PTTL', KEYS[i])
    if left ~= -2 and left < tonumber(ARGV[5]) then
        redis.call('PEXPIRE', KEYS[i], ARGV[7])
    end
end
return 1
