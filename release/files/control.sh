#!/bin/sh
# Starts and stops the gateway agent where there is no systemd: under MultiTech's app-manager,
# Kerlink's monit or any SysV init. POSIX sh, as busybox has it.
#
#   control.sh start|stop|restart|reload|status
#
# Set by whoever calls it:
#   AGENT_HOME     folder of aquacis-edge.pyz and of this file
#   AGENT_CONFIG   settings (JSON); its folder and AGENT_STATE are given to AGENT_USER
#   AGENT_STATE    folder of the outbox
#   AGENT_RUN      folder for the pid and the log's pipe, emptied by a reboot
#   AGENT_USER     who runs it when we are root (default aquacis; never root unless said so)
#   AGENT_STATUS   file for {"pid", "AppInfo"}, optional
#
# The agent is started again when it ends by itself: after 5 s, after 60 s where its settings or
# the broker's refusal are the reason. Its log goes to syslog under the name aquacis-edge.
#
# exit codes: 0 done · 1 stop or status: it did not end, or is not running · 2 wrong usage
#             69 no Python 3.10 or newer with sqlite3 and ssl · 77 no such user · 78 no settings

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
    mkdir -p "$AGENT_RUN" && status_place || return 1
    [ -f "$AGENT_CONFIG" ] || { say "no settings: $AGENT_CONFIG"; told "no settings: $AGENT_CONFIG"; return 78; }
    AGENT_PYTHON=$(python) || {
        say "no Python 3.10 or newer with sqlite3 and ssl was found"
        told "no Python 3.10 or newer with sqlite3 and ssl"
        return 69
    }
    mkdir -p "$AGENT_STATE" || return 1
    export AGENT_HOME AGENT_CONFIG AGENT_STATE AGENT_RUN AGENT_STATUS AGENT_PYTHON
    if [ "$(id -u)" = 0 ]; then
        id "$AGENT_USER" >/dev/null 2>&1 || { say "no user $AGENT_USER"; told "no user $AGENT_USER"; return 77; }
        chown -R "$AGENT_USER" "$AGENT_STATE" "$AGENT_RUN" "$(dirname "$AGENT_CONFIG")" || return 1
        start-stop-daemon -S -b -m -p "$PID_FILE" -c "$AGENT_USER" -x /bin/sh -- "$AGENT_HOME/control.sh" supervise
    else
        start-stop-daemon -S -b -m -p "$PID_FILE" -x /bin/sh -- "$AGENT_HOME/control.sh" supervise
    fi
}

# The agent replaces its status file, so that lies in a folder of its own; the place that
# app-manager looks at leads there.
status_place() {
    [ -z "$AGENT_STATUS" ] || ln -sf "$AGENT_RUN/status.json" "$AGENT_STATUS"
}

# Say in the status file why nothing runs.
told() {
    [ -z "$AGENT_STATUS" ] || printf '{"pid": 0, "AppInfo": "%.140s"}\n' "$1" >"$AGENT_STATUS" 2>/dev/null || true
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
    trap 'stopping=yes; [ -z "$child" ] || kill -TERM "$child" 2>/dev/null' TERM INT
    export MALLOC_ARENA_MAX=1 PYTHONDONTWRITEBYTECODE=1
    while [ -z "$stopping" ]; do
        rm -f "$pipe"
        if mkfifo "$pipe" 2>/dev/null && command -v logger >/dev/null; then
            logger -t "$NAME" <"$pipe" &
        else
            pipe=/dev/null
        fi
        "$AGENT_PYTHON" "$PYZ" run --config "$AGENT_CONFIG" \
            ${AGENT_STATUS:+--status-file "$AGENT_RUN/status.json"} >/dev/null 2>"$pipe" &
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
        sleep "$pause" &
        wait $! || true
    done
    rm -f "$AGENT_RUN/log"
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
