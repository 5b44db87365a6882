-- Registers a session, makes the inbox if there is none, and says whether a resume is complete.
-- KEYS: meta, entries, sessions, devices, delivered
-- ARGV: run, session, gateway, device, epoch for a new inbox, idle_ms, devices_max, resume epoch or '', resume cursor, kept_ms, 1 if it replaces the device's others, 1 if the resume cursor counts as confirmed
-- Returns: epoch, head, 1 if resumed, this change's place among those of the user's presence, what the device had confirmed or what is before the oldest entry, then session and gateway of each session that this one replaces.
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'run', 'head', 'presence_at')
local epoch, head, cursor = meta[1], tonumber(meta[3]), tonumber(ARGV[9])
if meta[2] and meta[2] ~= ARGV[1] then
    -- Its last entries and its sessions' ends may be missing.
    redis.call('DEL', KEYS[1], KEYS[3])
    epoch = nil
elseif epoch and ARGV[8] == epoch and cursor > head then
    -- It has lost entries that this device was given.
    redis.call('HDEL', KEYS[1], 'devices')
    epoch = nil
end
if not epoch then
    epoch, head = ARGV[5], 0
    redis.call('DEL', KEYS[2], KEYS[4], KEYS[5])
    redis.call('HSET', KEYS[1], 'epoch', epoch, 'head', head, 'run', ARGV[1])
elseif not meta[2] then
    redis.call('HSET', KEYS[1], 'run', ARGV[1])
end

local first = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1)
local oldest = head + 1
if first[1] then
    oldest = tonumber(string.match(first[1][1], '^%d+'))
end
local is_resumed = ARGV[8] == epoch and cursor >= oldest - 1

-- Changes of presence are in order also if the clock goes back.
local time = redis.call('TIME')
local at = math.max(time[1] * 1000 + math.floor(time[2] / 1000), (tonumber(meta[4]) or 0) + 1)
redis.call('HSET', KEYS[1], 'presence_at', at)
local confirmed = math.max(tonumber(redis.call('HGET', KEYS[4], ARGV[4]) or 0), oldest - 1)
local answer = { epoch, head, is_resumed and 1 or 0, at, confirmed }
-- From here on the inbox' entries wait for this one to confirm them, as does what those that it replaces left unconfirmed.
local begun = head
local sessions = redis.call('HGETALL', KEYS[3])
for i = 1, #sessions, 2 do
    local gateway, device, before = string.match(sessions[i + 1], '^(%S+) (%S+) ?(%d*)')
    if device == ARGV[4] and (ARGV[11] == '1' or sessions[i] == ARGV[2]) then
        if sessions[i] ~= ARGV[2] then
            redis.call('HDEL', KEYS[3], sessions[i])
            answer[#answer + 1] = sessions[i]
            answer[#answer + 1] = gateway
        end
        begun = math.min(begun, tonumber(before) or head)
    end
end
redis.call('HSET', KEYS[3], ARGV[2], ARGV[3] .. ' ' .. ARGV[4] .. ' ' .. begun)

-- A device that has to reload has confirmed nothing yet; its session keeps the entries that follow for it.
if is_resumed and ARGV[12] == '1' then
    enter(ARGV[4], cursor, tonumber(ARGV[7]))
end
for i = 1, 5 do
    local left = redis.call('PTTL', KEYS[i])
    if left ~= -2 and left < tonumber(ARGV[6]) then
        redis.call('PEXPIRE', KEYS[i], ARGV[10])
    end
end
return answer
