# Completion of lmworks; zsh reads it through bashcompinit. What stands between @ is filled in by completion.py.

# Offers the words that begin as what is typed. Behind "=" a value follows; zsh would quote a space.
_lmworks_offer() {
    local typed=$1 word
    shift
    for word in "$@"; do
        [[ $word == "$typed"* ]] || continue
        [[ $word == *= || -n $ZSH_VERSION ]] || word+=" "
        COMPREPLY+=("$word")
    done
}

_lmworks_paths() {
    compopt -o filenames 2> /dev/null
    local path
    while IFS= read -r path; do COMPREPLY+=("$prefix$path"); done < <(compgen "$@" -- "$value")
}

_lmworks() {
    local line=${COMP_LINE:0:$COMP_POINT} prefix= root=runs command flag value record
    local word=${line##*[[:space:]]}
    read -r _ command _ <<< "$line "
    COMPREPLY=()
    if [[ $line =~ ^[[:space:]]*[^[:space:]]+[[:space:]]+[^[:space:]]*$ ]]; then
        _lmworks_offer "$word" @COMMANDS@ --help --version
    elif [[ $word == --*=* ]]; then
        flag=${word%%=*} value=${word#*=}
        # Bash replaces only what stands behind "=", where that separates words.
        [[ $COMP_WORDBREAKS == *=* ]] || prefix=$flag=
        case $command$flag in
@VALUES@
            *--config) _lmworks_paths -f -X '!*.y*ml'; _lmworks_paths -d ;;
            *--root | *--servable) _lmworks_paths -d ;;
            *--input | *--output) _lmworks_paths -f ;;
            *--set) _lmworks_offer "$prefix$value" @KEYS@ ;;
        esac
    elif [[ $word != -* && ${line%"$word"} =~ ^[[:space:]]*[^[:space:]]+[[:space:]]+runs([[:space:]]+-[^[:space:]]*)*[[:space:]]+$ ]]; then
        [[ $line == *--root=* ]] && root=${line##*--root=} root=${root%%[[:space:]]*}
        for record in $(compgen -G "$root/*/run.json"); do
            record=${record%/run.json} record=${record##*/}
            [[ $record =~ ^[A-Za-z0-9][A-Za-z0-9._-]*$ ]] && _lmworks_offer "$word" "$record"
        done
    else
        case $command in
@FLAGS@
        esac
    fi
    return 0
}
complete -o nospace -F _lmworks lmworks
