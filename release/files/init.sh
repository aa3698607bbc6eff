#!/bin/sh
### BEGIN INIT INFO
# Provides:          aquacis-edge
# Required-Start:    $local_fs $network
# Required-Stop:     $local_fs $network
# Default-Start:     2 3 4 5
# Default-Stop:      0 1 6
# Short-Description: AquaCIS gateway agent
### END INIT INFO
# SysV init of a gateway: start|stop|restart|reload|status. /etc/default/aquacis-edge may set any
# of the names that control.sh explains.
[ ! -r /etc/default/aquacis-edge ] || . /etc/default/aquacis-edge
export AGENT_HOME=${AGENT_HOME:-@HOME@}
export AGENT_CONFIG=${AGENT_CONFIG:-@HOME@/config/gateway.json}
export AGENT_STATE=${AGENT_STATE:-@HOME@/state}
export AGENT_RUN=${AGENT_RUN:-/var/run/aquacis-edge}
export AGENT_USER AGENT_STATUS AGENT_CONFIG_DIR
exec /bin/sh "$AGENT_HOME/control.sh" "$@"
