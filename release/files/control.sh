#!/bin/sh
# Starts and stops the gateway agent where there is no systemd: under MultiTech's app-manager,
# Kerlink's monit or any SysV init. POSIX sh, as busybox has it.
#
#   control.sh start|stop|restart|reload|status
#
# Set by whoever calls it:
#   AGENT_HOME     folder of aquacis-edge.pyz and of this file
#   AGENT_CONFIG   settings (JSON), given to AGENT_USER
#   AGENT_CONFIG_DIR  a folder that holds them, keys and certificates, and nothing of others,
#                  optional: it and the files in it are given to AGENT_USER. AGENT_HOME/config is one
#   AGENT_STATE    folder of the outbox
#   AGENT_RUN      folder for the pid and the log's pipe, emptied by a reboot
#   AGENT_USER     who runs it when we are root (default aquacis; never root unless said so)
#   AGENT_STATUS   file for {"pid", "AppInfo"}, optional
#
# The agent is started again when it ends by itself: after 5 s, after 60 s where its settings or
# the broker's refusal are the reason. Its log goes to syslog under the name aquacis-edge.
#
# exit codes: 0 done · 1 stop or status: it did not end, or is not running · 2 wrong usage
#             69 no Python 3.10 or newer with sqlite3 and ssl · 73 AGENT_STATE or AGENT_RUN is
#             somebody else's folder · 77 no such user · 78 no settings

NAME=aquacis-edge
STOP_S=40  # the agent keeps what it has heard and waits for the last acks: about 8 s
AGAIN_S=${AGENT_AGAIN_S:-5}
REFUSED_AGAIN_S=60

: "${AGENT_HOME:?}" "${AGENT_CONFIG:?}" "${AGENT_STATE:?}" "${AGENT_RUN:?}"
AGENT_USER=${AGENT_USER:-aquacis}
PID_FILE=$AGENT_RUN/$NAME.pid
PYZ=$AGENT_HOME/$NAME.pyz

say() {
    echo "$NAME: $*" >&2
    logger -t "$NAME" "$*" 2>/dev/null || true
}

# Print the first Python that can run the agent: one that was put beside it, else the system's.
python() {
    for candidate in "$AGENT_HOME/python/bin/python3" python3 python3.13 python3.12 python3.11 python3.10
    do
        if "$candidate" -c 'import sys, sqlite3, ssl; sys.exit(sys.version_info < (3, 10))' 2>/dev/null
        then
            command -v "$candidate"
            return 0
        fi
    done
    return 1
}

# Print the pid of our own supervisor; a number left by an earlier life may be another's by now.
running() {
    pid=$(cat "$PID_FILE" 2>/dev/null) || return 1
    [ -n "$pid" ] && tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -q "control.sh supervise" || return 1
    echo "$pid"
}

start() {
    if running >/dev/null; then
        say "runs already"
        return 0
    fi
    [ -f "$AGENT_CONFIG" ] || { say "no settings: $AGENT_CONFIG"; told "no settings: $AGENT_CONFIG"; return 78; }
    AGENT_PYTHON=$(python) || {
        say "no Python 3.10 or newer with sqlite3 and ssl was found"
        told "no Python 3.10 or newer with sqlite3 and ssl"
        return 69
    }
    export AGENT_HOME AGENT_CONFIG AGENT_STATE AGENT_RUN AGENT_STATUS AGENT_PYTHON
    if [ "$(id -u)" = 0 ]; then
        id "$AGENT_USER" >/dev/null 2>&1 || { say "no user $AGENT_USER"; told "no user $AGENT_USER"; return 77; }
        own "$AGENT_STATE" && own "$AGENT_RUN" && give_settings || return 73
        status_place || return 1
        start-stop-daemon -S -b -m -p "$PID_FILE" -c "$AGENT_USER" -x /bin/sh -- "$AGENT_HOME/control.sh" supervise
    else
        mkdir -p "$AGENT_STATE" "$AGENT_RUN" && status_place || return 1
        start-stop-daemon -S -b -m -p "$PID_FILE" -x /bin/sh -- "$AGENT_HOME/control.sh" supervise
    fi
}

# Give AGENT_USER a folder: one that is made here, one that is empty, or one that is theirs already.
# Anybody else's stays as it is: AGENT_STATE=/var must not make /var theirs.
own() {
    if [ ! -d "$1" ]; then
        mkdir -p "$1" && chown "$AGENT_USER" "$1"
    elif [ "$(listed "$1/." 3)" != "$(id -u "$AGENT_USER")" ]; then
        [ -z "$(ls -A "$1")" ] || {
            say "$1 is not empty and not $AGENT_USER's: chown it, or name another folder"
            told "$1 is not $AGENT_USER's"
            return 73
        }
        chown "$AGENT_USER" "$1/."
    fi
}

# Let the agent read its settings, and in a folder that is its own what lies beside them.
give_settings() {
    folder=$(dirname "$AGENT_CONFIG")
    case $folder in
    "$AGENT_HOME/config" | "${AGENT_CONFIG_DIR:-$AGENT_HOME/config}")
        chown "$AGENT_USER" "$folder/." || return 1
        for file in "$folder"/*; do give "$file"; done
        ;;
    *) give "$AGENT_CONFIG" ;;
    esac
    return 0
}

# Give AGENT_USER a file; no link, for who owns the folder may have made it lead anywhere.
give() {
    [ -f "$1" ] && [ ! -L "$1" ] && [ "$(listed "$1" 2)" = 1 ] && chown -h "$AGENT_USER" "$1"
}

# Print the links (2) or the owner's number (3) of a file.
listed() {
    ls -ldn "$1" | tr -s ' ' | cut -d ' ' -f "$2"
}

# The agent replaces its status file, so that lies in a folder of its own; the place that
# app-manager looks at leads there.
status_place() {
    [ -z "$AGENT_STATUS" ] || ln -sf "$AGENT_RUN/status.json" "$AGENT_STATUS"
}

# Say in the status file why nothing runs; not where a link of the agent's user may lead.
told() {
    [ -z "$AGENT_STATUS" ] || rm -f "$AGENT_STATUS" 2>/dev/null
    [ -z "$AGENT_STATUS" ] || [ -L "$AGENT_STATUS" ] || printf '{"pid": 0, "AppInfo": "%.140s"}\n' "$1" >"$AGENT_STATUS" 2>/dev/null || true
}

stop() {
    pid=$(running) || { rm -f "$PID_FILE"; return 0; }
    kill -TERM "$pid" 2>/dev/null
    waited=0
    while kill -0 "$pid" 2>/dev/null; do
        if [ "$waited" -ge "$STOP_S" ]; then
            say "did not end within $STOP_S s"
            kill -KILL "$pid" 2>/dev/null
            return 1
        fi
        sleep 1
        waited=$((waited + 1))
    done
    rm -f "$PID_FILE"
}

# Runs as AGENT_USER: keeps the agent running until it is told to stop.
supervise() {
    umask 077
    stopping=
    child=
    pipe=$AGENT_RUN/log
    rm -f "$pipe"
    if command -v logger >/dev/null && mkfifo "$pipe" 2>/dev/null; then
        exec 3<>"$pipe" # held open: no agent that ends and no logger that dies closes it
        keep_log 3>&- &
    else
        exec 3>/dev/null
    fi
    trap 'stopping=yes; [ -z "$child" ] || kill -TERM "$child" 2>/dev/null' TERM INT
    export MALLOC_ARENA_MAX=1 PYTHONDONTWRITEBYTECODE=1
    while [ -z "$stopping" ]; do
        "$AGENT_PYTHON" "$PYZ" run --config "$AGENT_CONFIG" \
            ${AGENT_STATUS:+--status-file "$AGENT_RUN/status.json"} >/dev/null 2>&3 3>&- &
        child=$!
        code=0
        wait "$child" || code=$?
        while kill -0 "$child" 2>/dev/null; do # a trapped signal ended the wait, not the child
            wait "$child" || code=$?
        done
        child=
        [ -z "$stopping" ] || break
        pause=$AGAIN_S
        case $code in 77 | 78) pause=$REFUSED_AGAIN_S ;; esac
        say "ended with $code; started again in $pause s"
        sleep "$pause" 3>&- &
        wait $! || true
    done
    rm -f "$pipe"
    exec 3>&- # what is in the pipe is still read
}

# Hand the log to syslog as long as the pipe is there; a logger may die, as when syslogd restarts.
keep_log() {
    while [ -p "$pipe" ]; do
        logger -t "$NAME" <"$pipe" 2>/dev/null
        [ ! -p "$pipe" ] || sleep 1
    done
}

case "$1" in
start) start ;;
stop) stop ;;
restart | reload) stop && start ;; # settings are read once, at the start
status) pid=$(running) && echo "$NAME runs ($pid)" || { echo "$NAME does not run"; exit 1; } ;;
supervise) supervise ;;
*)
    echo "usage: $0 start|stop|restart|reload|status" >&2
    exit 2
    ;;
esac
