# Written by `make setup` for this environment's own Spark; made anew by each set-up.
# Sourced by every Spark command, with that command's arguments.

# Java names files as the locale encodes them, and in one that is not of UTF-8 it has no name for an "ü".
case "${LC_ALL:-${LC_CTYPE:-${LANG:-}}}" in
  *[Uu][Tt][Ff]-8* | *[Uu][Tt][Ff]8*) ;;
  *) export LC_ALL=C.UTF-8 ;;
esac

# A local Spark talks only to itself: on the loopback address it starts on a machine whose host name
# does not resolve, and survives a change of network or VPN. A cluster's executors must reach the
# driver, so where a master is named that is not local, Spark chooses as it always does.
if [ -z "${SPARK_LOCAL_IP}" ]; then
  case " $* " in
    *" --master"[\ =]local* | *" spark.master=local"*) export SPARK_LOCAL_IP=127.0.0.1 ;;
    *" --master"* | *" spark.master="*) ;;
    *) case "${MASTER:-local}" in local*) export SPARK_LOCAL_IP=127.0.0.1 ;; esac ;;
  esac
fi
