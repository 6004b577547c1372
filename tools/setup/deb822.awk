# Print the stanza of a .sources file that offers `suite` from `uri`, as one for the suite `new`,
# component main. Lines that go on (an embedded key) stay with their field.
BEGIN { RS = ""; FS = "\n" }
{
    rest = ""; uris = ""; suites = ""; enabled = 1; keep = 0
    for (i = 1; i <= NF; i++) {
        if ($i ~ /^#/) continue
        if ($i ~ /^[^ \t]/) {
            name = tolower(substr($i, 1, index($i, ":") - 1))
            keep = name !~ /^(types|uris|suites|components|enabled)$/
        }
        value = $i; sub(/^[^ \t][^:]*:/, "", value)
        if (name == "uris") uris = uris " " value
        if (name == "suites") suites = suites " " value
        if (name == "enabled" && value ~ /no|false|off|without|disable/) enabled = 0
        if (keep) rest = rest $i "\n"
    }
    if (enabled && has(uris, uri) && has(suites, suite)) {
        printf "Types: deb\nURIs: %s\nSuites: %s\nComponents: main\n%s", uri, new, rest
        exit
    }
}
function has(words, word,    list, n, i) {
    n = split(words, list, " ")
    for (i = 1; i <= n; i++) {
        sub(/\/$/, "", list[i]); sub(/\/$/, "", word)
        if (list[i] == word) return 1
    }
    return 0
}
