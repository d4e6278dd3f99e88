-- Several calls of one script as one: its keys and arguments one call after the other. A call that fails changes nothing
-- for the others; its error stands in its place.
--
-- KEYS    the keys of all calls
-- ARGV    of each call how many keys it has, how many arguments, and these
-- Reply   the replies of the calls, in order
local function one(KEYS, ARGV)
---@body
end

local replies, next_key, at = {}, 1, 1
while at <= #ARGV do
    local keys, arguments = {}, {}
    local key_count, argument_count = tonumber(ARGV[at]), tonumber(ARGV[at + 1])
    at = at + 2
    for i = 1, key_count do
        keys[i] = KEYS[next_key]
        next_key = next_key + 1
    end
    for i = 1, argument_count do
        arguments[i] = ARGV[at]
        at = at + 1
    end
    local ok, reply = pcall(one, keys, arguments)
    if not ok then
        if type(reply) ~= 'table' then reply = {err = 'ERR ' .. tostring(reply)} end
        reply = {err = reply.err}
    elseif reply == nil then
        -- A nil would end the list.
        reply = false
    end
    replies[#replies + 1] = reply
end
return replies
